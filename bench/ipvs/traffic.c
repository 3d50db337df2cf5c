// SPDX-License-Identifier: Apache-2.0
/*
 * Client and servers of bench-ipvs in one process, so that no scheduler takes part: each step
 * waits for what the one before it has sent. Sockets belong to the namespace that they were made
 * in.
 *
 *   traffic ROUND COUNT TO[,TO]... CLIENT TASK...
 *
 * TO are the addresses that the client asks in turn, CLIENT and TASK are files of network
 * namespaces. ROUND gives other source ports to each run, so that its flows are new. Prints a line
 * for each kind of work, with the instructions that one of it takes, and how many of the new flows
 * each task got; `peer` is whom a task sees. Meant for a CPU whose time stamp counter counts
 * instructions.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>
#include <x86intrin.h>

#define MAX_TASKS 16
#define MAX_ADDRESSES 16
#define KNOWN 16   /* UDP flows that are open */
#define CLIENTS 64 /* UDP sockets that open flows: to each of as many ports */
#define PORTS 64
#define UDP_PORT 5000
#define TCP_PORT 6000

/* Source ports of a round, from its first one on. */
#define FIRST_PORT 10000
#define ROUND_PORTS 4000
#define ROUNDS 13
#define NEW_PORT 100
#define TCP_SOURCE 300

#define SETTLE_US 50000
#define SMALL 32
#define MESSAGE 64
#define CHUNK (64 << 10)
#define MEBIBYTE (1 << 20)

struct flow {
	int client, server;
	struct sockaddr_in peer; /* whom the server sees */
};

static struct sockaddr_in to[MAX_ADDRESSES];
static int to_count, task_count;
static int listeners[MAX_TASKS], datagrams[MAX_TASKS][PORTS];
static int listening, receiving; /* epoll */
static uint16_t ports;           /* of this round */
static char buffer[CHUNK];

static long must(long result, const char *what)
{
	if (result < 0) {
		perror(what);
		exit(1);
	}
	return result;
}

static void whole(long result, long expected, const char *what)
{
	if (must(result, what) != expected) {
		fprintf(stderr, "%s: %ld bytes, not %ld\n", what, result, expected);
		exit(1);
	}
}

static void enter(const char *namespace)
{
	int fd = must(open(namespace, O_RDONLY | O_CLOEXEC), namespace);

	must(setns(fd, CLONE_NEWNET), "setns");
	close(fd);
}

static int bound(int type, uint16_t port)
{
	struct sockaddr_in own = { .sin_family = AF_INET, .sin_port = htons(port) };
	int fd = must(socket(AF_INET, type | SOCK_CLOEXEC, 0), "socket"), on = 1;

	must(setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)), "SO_REUSEADDR");
	if (type == SOCK_STREAM)
		must(setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)), "TCP_NODELAY");
	must(bind(fd, (struct sockaddr *)&own, sizeof(own)), "bind");
	return fd;
}

static void watch(int epoll, int fd, int task)
{
	struct epoll_event event = { .events = EPOLLIN, .data.u64 = (uint64_t)task << 32 | fd };

	must(epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event), "epoll_ctl");
}

static void serve(int task)
{
	listeners[task] = bound(SOCK_STREAM, TCP_PORT);
	must(listen(listeners[task], 128), "listen");
	watch(listening, listeners[task], task);
	for (int port = 0; port < PORTS; port++) {
		datagrams[task][port] = bound(SOCK_DGRAM, UDP_PORT + port);
		watch(receiving, datagrams[task][port], task);
	}
}

/* The socket that something has come to; *task is whose. */
static int next(int epoll, int *task)
{
	struct epoll_event event;

	if (must(epoll_wait(epoll, &event, 1, 5000), "epoll_wait") != 1) {
		fprintf(stderr, "nothing came\n");
		exit(1);
	}
	*task = event.data.u64 >> 32;
	return (int)event.data.u64;
}

static struct sockaddr_in asked(int number, uint16_t port)
{
	struct sockaddr_in address = to[number % to_count];

	address.sin_port = htons(port);
	return address;
}

/* What is still owed to earlier work (RCU frees the sockets of whole runs) is done first. */
static uint64_t start_clock(void)
{
	usleep(SETTLE_US);
	return __rdtsc();
}

static void tell(const char *work, uint64_t since, int count)
{
	printf("%s %.1f\n", work, (double)(__rdtsc() - since) / count);
}

/* One datagram there and one back. */
static void exchange(struct flow *flow)
{
	socklen_t size = sizeof(flow->peer);
	struct sockaddr *peer = (struct sockaddr *)&flow->peer;
	int task;

	whole(send(flow->client, buffer, SMALL, 0), SMALL, "send");
	flow->server = next(receiving, &task);
	whole(recvfrom(flow->server, buffer, CHUNK, 0, peer, &size), SMALL, "recvfrom");
	whole(sendto(flow->server, buffer, SMALL, 0, peer, size), SMALL, "sendto");
	whole(recv(flow->client, buffer, CHUNK, 0), SMALL, "recv");
}

static void open_flows(struct flow *flows)
{
	for (int i = 0; i < KNOWN; i++) {
		struct sockaddr_in address = asked(i, UDP_PORT);

		flows[i].client = bound(SOCK_DGRAM, ports + i);
		must(connect(flows[i].client, (struct sockaddr *)&address, sizeof(address)),
		     "connect");
		for (int times = 0; times < 3; times++)
			exchange(&flows[i]);
	}
	printf("peer %s\n", inet_ntoa(flows[0].peer.sin_addr));
}

static void known_packets(int count)
{
	struct flow flows[KNOWN];
	uint64_t start;

	open_flows(flows);
	start = start_clock();
	for (int i = 0; i < count; i++) {
		struct flow *flow = &flows[i % KNOWN];

		whole(send(flow->client, buffer, SMALL, 0), SMALL, "send");
		whole(recv(flow->server, buffer, CHUNK, 0), SMALL, "recv");
	}
	tell("packet", start, count);
	start = start_clock();
	for (int i = 0; i < count; i++) {
		struct flow *flow = &flows[i % KNOWN];
		struct sockaddr *peer = (struct sockaddr *)&flow->peer;

		whole(sendto(flow->server, buffer, SMALL, 0, peer, sizeof(flow->peer)), SMALL,
		      "sendto");
		whole(recv(flow->client, buffer, CHUNK, 0), SMALL, "recv");
	}
	tell("answer", start, count);
}

/* Returns which task got it. */
static int open_flow(const int *clients, int number)
{
	struct sockaddr_in address = asked(number, UDP_PORT + number / CLIENTS);
	int task, server;

	whole(sendto(clients[number % CLIENTS], buffer, SMALL, 0, (struct sockaddr *)&address,
		     sizeof(address)),
	      SMALL, "sendto");
	server = next(receiving, &task);
	whole(recv(server, buffer, CHUNK, 0), SMALL, "recv");
	return task;
}

static void new_flows(int count)
{
	int clients[CLIENTS], got[MAX_TASKS] = {}, warm = CLIENTS;
	uint64_t start;

	if (count > CLIENTS * PORTS - warm)
		count = CLIENTS * PORTS - warm;
	for (int i = 0; i < CLIENTS; i++)
		clients[i] = bound(SOCK_DGRAM, ports + NEW_PORT + i);
	for (int i = 0; i < warm; i++)
		open_flow(clients, i);
	start = start_clock();
	for (int i = 0; i < count; i++)
		got[open_flow(clients, warm + i)]++;
	tell("new", start, count);
	for (int task = 0; task < task_count; task++)
		printf("got %d\n", got[task]);
}

static void request(int client, int server)
{
	whole(send(client, buffer, MESSAGE, 0), MESSAGE, "send");
	whole(recv(server, buffer, CHUNK, 0), MESSAGE, "recv");
	whole(send(server, buffer, MESSAGE, 0), MESSAGE, "send");
	whole(recv(client, buffer, CHUNK, 0), MESSAGE, "recv");
}

static struct flow open_connection(int number)
{
	struct sockaddr_in address = asked(number, TCP_PORT);
	struct flow flow = { .client = bound(SOCK_STREAM, ports + TCP_SOURCE + number) };
	int task;

	must(connect(flow.client, (struct sockaddr *)&address, sizeof(address)), "connect");
	flow.server = must(accept4(next(listening, &task), NULL, NULL, SOCK_CLOEXEC), "accept4");
	return flow;
}

/* The server closes first, as one of HTTP/1.0 does. */
static void close_connection(const struct flow *flow)
{
	close(flow->server);
	whole(recv(flow->client, buffer, CHUNK, 0), 0, "end");
	close(flow->client);
}

static void connections(int first, int count)
{
	for (int i = 0; i < count; i++) {
		struct flow flow = open_connection(first + i);

		request(flow.client, flow.server);
		close_connection(&flow);
	}
}

static void bulk(const struct flow *flow, int mebibytes)
{
	for (int i = 0; i < mebibytes * (MEBIBYTE / CHUNK); i++) {
		whole(send(flow->client, buffer, CHUNK, 0), CHUNK, "send");
		whole(recv(flow->server, buffer, CHUNK, MSG_WAITALL), CHUNK, "recv");
	}
}

static void tcp(int count)
{
	int number = 0, few = count / 4, mebibytes = count / 50;
	struct flow flow;
	uint64_t start;

	connections(number, 16);
	number += 16;
	start = start_clock();
	connections(number, few);
	tell("connection", start, few);
	number += few;

	flow = open_connection(number++);
	for (int i = 0; i < 32; i++)
		request(flow.client, flow.server);
	start = start_clock();
	for (int i = 0; i < count; i++)
		request(flow.client, flow.server);
	tell("kept", start, count);
	close_connection(&flow);

	flow = open_connection(number);
	bulk(&flow, 4);
	start = start_clock();
	bulk(&flow, mebibytes);
	tell("bulk", start, mebibytes);
	close_connection(&flow);
}

static void parse_addresses(char *list)
{
	for (char *text = strtok(list, ","); text && to_count < MAX_ADDRESSES;
	     text = strtok(NULL, ",")) {
		to[to_count].sin_family = AF_INET;
		if (!inet_aton(text, &to[to_count++].sin_addr)) {
			fprintf(stderr, "no address: %s\n", text);
			exit(2);
		}
	}
}

int main(int argc, char **argv)
{
	struct rlimit files = { .rlim_cur = 4096, .rlim_max = 4096 };
	int round, count;

	if (argc < 6 || argc - 5 > MAX_TASKS) {
		fprintf(stderr, "usage: traffic ROUND COUNT TO[,TO]... CLIENT TASK...\n");
		return 2;
	}
	round = atoi(argv[1]);
	count = atoi(argv[2]);
	ports = FIRST_PORT + round % ROUNDS * ROUND_PORTS;
	parse_addresses(argv[3]);
	must(setrlimit(RLIMIT_NOFILE, &files), "setrlimit");
	listening = must(epoll_create1(EPOLL_CLOEXEC), "epoll_create1");
	receiving = must(epoll_create1(EPOLL_CLOEXEC), "epoll_create1");
	task_count = argc - 5;
	for (int task = 0; task < task_count; task++) {
		enter(argv[5 + task]);
		serve(task);
	}
	enter(argv[4]);
	known_packets(count);
	new_flows(count);
	tcp(count);
	return 0;
}
