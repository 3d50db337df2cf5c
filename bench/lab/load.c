// SPDX-License-Identifier: Apache-2.0
/*
 * The client of bench-lab: one thread that spends as little as possible on each request.
 *
 *   load MODE CLIENTS SECONDS RATE ADDRESS:PORT...
 *
 *   once      connections, one request each, that the server closes
 *   keep      requests on kept connections
 *   down, up  bytes from and to the server
 *   udp       datagrams there and back, WINDOW on the way for each client
 *   paced     requests on kept connections, RATE a second, and how long each took, from
 *             when it was due: one that had to wait for others counts with its wait
 *
 * CLIENTS sockets take the targets in turn. The first WARMUP of SECONDS does not count. On
 * a machine that lets nothing happen in that time, it takes longer.
 * Prints one line of JSON. RATE is of no meaning to the other modes.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "wire.h"

#define MAX_EVENTS 64
#define MAX_TARGETS 16
#define MAX_FAILURES 1000
#define SAMPLES_MAX (8u << 20)

#define SECOND_NS 1000000000ull
#define WARMUP 6 /* a sixth of the time */
#define WAIT_MS 10
#define WINDOW 16
#define LOST_AFTER_NS (SECOND_NS / 10)

struct client {
	int fd;
	size_t number;
	bool connected;
	size_t got;        /* bytes of the answer, "once" */
	uint64_t due_ns;   /* of the request that is out, "paced" */
	uint64_t heard_ns; /* last time, "udp" */
	unsigned int out;  /* datagrams on the way, "udp" */
};

/* What has been counted since the start. */
struct count {
	uint64_t done, bytes, lost;
};

struct mode {
	const char *name;
	void (*open)(struct client *client);
	void (*ready)(struct client *client);
};

static const struct mode *mode;
static struct client *clients;
static size_t client_count, target_count;
static struct sockaddr_in targets[MAX_TARGETS];

static int epoll_fd;
static uint64_t now_ns;
static bool warm;
static struct count count;
static unsigned int failed;
static char chunk[BULK_CHUNK];

static uint64_t rate, next_due_ns;
static struct client **idle; /* a ring: every connection gets its turn */
static size_t idle_first, idle_count;
static uint32_t *samples; /* nanoseconds */
static size_t sample_count;

static void die(const char *what)
{
	perror(what);
	exit(1);
}

static uint64_t clock_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * SECOND_NS + now.tv_nsec;
}

static bool would_block(void)
{
	return errno == EAGAIN || errno == EINTR;
}

/* ---- sockets ----------------------------------------------------------- */

static void watch(struct client *client, uint32_t events)
{
	struct epoll_event event = { .events = events, .data.ptr = client };

	if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, client->fd, &event))
		die("epoll_ctl");
}

static bool start_connect(struct client *client, int type)
{
	const struct sockaddr_in *to = &targets[client->number % target_count];
	int on = 1;

	client->fd = socket(AF_INET, type, 0);
	if (client->fd < 0)
		die("socket");
	if (type & SOCK_STREAM)
		setsockopt(client->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	return !connect(client->fd, (const struct sockaddr *)to, sizeof(*to));
}

/* Before the clock starts: a failure ends the program. */
static void connect_now(struct client *client, int type)
{
	if (!start_connect(client, type))
		die("connect");
	if (fcntl(client->fd, F_SETFL, O_NONBLOCK))
		die("fcntl");
}

static void say(struct client *client, const char *request)
{
	size_t len = strlen(request);

	if (send(client->fd, request, len, MSG_NOSIGNAL) != (ssize_t)len)
		die("send");
}

static void fail(struct client *client)
{
	if (++failed > MAX_FAILURES) {
		fprintf(stderr, "more than %d failures\n", MAX_FAILURES);
		exit(1);
	}
	close(client->fd);
	mode->open(client);
}

/* Whether an answer is there, and nothing else. */
static bool take_answer(struct client *client)
{
	char answer[REQUEST_MAX];
	ssize_t got = recv(client->fd, answer, sizeof(answer), 0);

	if (got == (ssize_t)strlen(ANSWER_KEPT))
		return true;
	if (got >= 0 || !would_block())
		fail(client);
	return false;
}

/* ---- once: a connection for each request ------------------------------- */

static void once_open(struct client *client)
{
	client->connected = false;
	client->got = 0;
	if (!start_connect(client, SOCK_STREAM | SOCK_NONBLOCK) && errno != EINPROGRESS)
		die("connect");
	/* By edges: one system call for both events. */
	watch(client, EPOLLIN | EPOLLOUT | EPOLLET);
}

static void once_connected(struct client *client)
{
	const char *request = REQUEST("o");
	ssize_t len = strlen(request);

	/* This is also where a refusal is met. */
	if (send(client->fd, request, len, MSG_NOSIGNAL) == len)
		client->connected = true;
	else if (!would_block())
		fail(client);
}

static void once_ready(struct client *client)
{
	char answer[REQUEST_MAX];
	ssize_t got;

	if (!client->connected) {
		once_connected(client);
		return;
	}
	while ((got = recv(client->fd, answer, sizeof(answer), 0)) > 0)
		client->got += got;
	if (got < 0 && would_block())
		return;
	if (got < 0 || client->got != strlen(ANSWER_ONCE)) {
		fail(client);
		return;
	}
	count.done++;
	close(client->fd);
	once_open(client);
}

/* ---- keep: one request after the other --------------------------------- */

static void keep_open(struct client *client)
{
	connect_now(client, SOCK_STREAM);
	watch(client, EPOLLIN);
	say(client, REQUEST("k"));
}

static void keep_ready(struct client *client)
{
	if (!take_answer(client))
		return;
	count.done++;
	say(client, REQUEST("k"));
}

/* ---- down, up: bytes --------------------------------------------------- */

static void down_open(struct client *client)
{
	connect_now(client, SOCK_STREAM);
	watch(client, EPOLLIN);
	say(client, REQUEST("d"));
}

/* With MSG_TRUNC nothing is copied: only its arrival counts. */
static void down_ready(struct client *client)
{
	ssize_t got = recv(client->fd, NULL, BULK_CHUNK, MSG_TRUNC);

	if (got > 0)
		count.bytes += got;
	else if (!got || !would_block())
		fail(client);
}

static void up_open(struct client *client)
{
	connect_now(client, SOCK_STREAM);
	say(client, REQUEST("u"));
	/* The request has to arrive by itself. */
	usleep(WAIT_MS * 1000);
	watch(client, EPOLLOUT);
}

static void up_ready(struct client *client)
{
	ssize_t sent = send(client->fd, chunk, sizeof(chunk), MSG_NOSIGNAL);

	if (sent > 0)
		count.bytes += sent;
	else if (!would_block())
		fail(client);
}

/* ---- udp: a window of datagrams ---------------------------------------- */

static void udp_messages(struct mmsghdr *messages, struct iovec *part)
{
	static char data[DATAGRAM_SIZE];

	*part = (struct iovec){ data, sizeof(data) };
	for (int i = 0; i < WINDOW; i++)
		messages[i].msg_hdr = (struct msghdr){ .msg_iov = part, .msg_iovlen = 1 };
}

static void udp_fill(struct client *client)
{
	struct mmsghdr messages[WINDOW];
	struct iovec part;
	int sent;

	udp_messages(messages, &part);
	sent = sendmmsg(client->fd, messages, WINDOW - client->out, 0);
	if (sent > 0)
		client->out += sent;
	else if (!would_block())
		fail(client);
}

static void udp_open(struct client *client)
{
	connect_now(client, SOCK_DGRAM);
	watch(client, EPOLLIN);
	client->out = 0;
	client->heard_ns = clock_ns();
	udp_fill(client);
}

static void udp_ready(struct client *client)
{
	struct mmsghdr messages[WINDOW];
	struct iovec part;
	int got;

	udp_messages(messages, &part);
	got = recvmmsg(client->fd, messages, WINDOW, 0, NULL);
	if (got <= 0) {
		if (!would_block())
			fail(client);
		return;
	}
	client->heard_ns = now_ns;
	count.done += got;
	/* One that was given up may come late. */
	client->out -= (unsigned int)got < client->out ? (unsigned int)got : client->out;
	udp_fill(client);
}

/* A socket that hears nothing has lost its window. */
static void udp_look(void)
{
	for (struct client *client = clients; client < clients + client_count; client++) {
		if (now_ns - client->heard_ns < LOST_AFTER_NS)
			continue;
		count.lost += client->out;
		client->out = 0;
		client->heard_ns = now_ns;
		udp_fill(client);
	}
}

/* ---- paced: at their time ---------------------------------------------- */

static void rest(struct client *client)
{
	idle[(idle_first + idle_count++) % client_count] = client;
}

static void paced_open(struct client *client)
{
	connect_now(client, SOCK_STREAM);
	watch(client, EPOLLIN);
	rest(client);
}

static void paced_ready(struct client *client)
{
	uint64_t took_ns;

	if (!take_answer(client))
		return;
	took_ns = clock_ns() - client->due_ns;
	count.done++;
	if (warm && sample_count < SAMPLES_MAX)
		samples[sample_count++] = took_ns < UINT32_MAX ? took_ns : UINT32_MAX;
	rest(client);
}

static void paced_send(void)
{
	while (idle_count && next_due_ns <= now_ns) {
		struct client *client = idle[idle_first];

		idle_first = (idle_first + 1) % client_count;
		idle_count--;
		client->due_ns = next_due_ns;
		next_due_ns += SECOND_NS / rate;
		say(client, REQUEST("k"));
	}
}

static int by_size(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return (x > y) - (x < y);
}

static double percentile_us(unsigned int per_mille)
{
	return sample_count ? samples[sample_count * per_mille / 1000] / 1e3 : 0;
}

/* ---- all of them ------------------------------------------------------- */

static const struct mode modes[] = {
	{ "once", once_open, once_ready }, { "keep", keep_open, keep_ready },
	{ "down", down_open, down_ready }, { "up", up_open, up_ready },
	{ "udp", udp_open, udp_ready },    { "paced", paced_open, paced_ready },
};

static void step(void)
{
	struct epoll_event events[MAX_EVENTS];
	/* Who waits is woken late: paced requests would be sent so. */
	int ready = epoll_wait(epoll_fd, events, MAX_EVENTS, rate ? 0 : WAIT_MS);

	now_ns = clock_ns();
	for (int i = 0; i < ready; i++)
		mode->ready(events[i].data.ptr);
	if (mode->open == udp_open)
		udp_look();
	if (rate)
		paced_send();
}

static bool has_counted(const struct count *before)
{
	return count.done > before->done || count.bytes > before->bytes;
}

static void run(uint64_t seconds_ns)
{
	uint64_t start_ns = clock_ns(), warm_ns = start_ns + seconds_ns / WARMUP;
	struct count before;

	next_due_ns = now_ns = start_ns;
	while (now_ns < warm_ns)
		step();
	warm = true;
	warm_ns = now_ns;
	before = count;
	while (now_ns < start_ns + seconds_ns || !has_counted(&before))
		step();
	qsort(samples, sample_count, sizeof(*samples), by_size);
	printf("{\"done\": %" PRIu64 ", \"bytes\": %" PRIu64 ", \"lost\": %" PRIu64
	       ", \"failed\": %u, \"seconds\": %.6f",
	       count.done - before.done, count.bytes - before.bytes, count.lost, failed,
	       (now_ns - warm_ns) / 1e9);
	printf(", \"p50_us\": %.3f, \"p90_us\": %.3f, \"p99_us\": %.3f, \"p999_us\": %.3f}\n",
	       percentile_us(500), percentile_us(900), percentile_us(990), percentile_us(999));
}

static void take_target(char *text)
{
	char *colon = strchr(text, ':');
	struct sockaddr_in *to = &targets[target_count];

	if (!colon || target_count == MAX_TARGETS)
		goto wrong;
	*colon = '\0';
	to->sin_family = AF_INET;
	to->sin_port = htons(atoi(colon + 1));
	if (inet_pton(AF_INET, text, &to->sin_addr) != 1)
		goto wrong;
	target_count++;
	return;
wrong:
	fprintf(stderr, "no target: %s\n", text);
	exit(2);
}

static void choose(const char *name)
{
	for (size_t i = 0; i < sizeof(modes) / sizeof(*modes); i++)
		if (!strcmp(modes[i].name, name))
			mode = &modes[i];
	if (!mode) {
		fprintf(stderr, "no mode: %s\n", name);
		exit(2);
	}
}

int main(int argc, char **argv)
{
	if (argc < 6) {
		fprintf(stderr, "load MODE CLIENTS SECONDS RATE ADDRESS:PORT...\n");
		return 2;
	}
	choose(argv[1]);
	client_count = atoi(argv[2]);
	if (mode->open == paced_open)
		rate = atoi(argv[4]);
	for (int i = 5; i < argc; i++)
		take_target(argv[i]);
	epoll_fd = epoll_create1(0);
	clients = calloc(client_count, sizeof(*clients));
	idle = calloc(client_count, sizeof(*idle));
	samples = malloc(SAMPLES_MAX * sizeof(*samples));
	if (epoll_fd < 0 || !clients || !idle || !samples)
		die("out of memory");
	for (size_t i = 0; i < client_count; i++) {
		clients[i].number = i;
		mode->open(&clients[i]);
	}
	run(atof(argv[3]) * SECOND_NS);
	return 0;
}
