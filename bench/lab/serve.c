// SPDX-License-Identifier: Apache-2.0
/*
 * The backend of bench-lab: as little work as possible for each request, so that the way
 * to it is what is measured.
 *
 *   serve PORT...     TCP and UDP on each of these ports, until a signal
 *
 * TCP takes the requests of wire.h, one at a time on each connection. UDP sends every
 * datagram back.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "wire.h"

#define MAX_EVENTS 64
#define BACKLOG 4096

enum kind {
	KIND_LISTENER,
	KIND_DATAGRAMS,
	KIND_CONN
};

/* What epoll hands back. `want` and what follows are a connection's alone. */
struct source {
	enum kind kind;
	int fd;
	char want; /* of the last whole request; 0: none yet */
	size_t have;
	char request[REQUEST_MAX];
};

static int epoll_fd;
static char chunk[BULK_CHUNK];

static void die(const char *what)
{
	perror(what);
	exit(1);
}

static bool would_block(void)
{
	return errno == EAGAIN || errno == EINTR;
}

static void watch(enum kind kind, int fd)
{
	struct source *source = calloc(1, sizeof(*source));
	struct epoll_event event = { .events = EPOLLIN, .data.ptr = source };

	if (!source)
		die("calloc");
	source->kind = kind;
	source->fd = fd;
	if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event))
		die("epoll_ctl");
}

static void conn_close(struct source *conn)
{
	close(conn->fd);
	free(conn);
}

static void accept_all(int listener)
{
	int fd, on = 1;

	while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
		watch(KIND_CONN, fd);
	}
	/* A client may be gone again before it is accepted. */
	if (!would_block() && errno != ECONNABORTED)
		die("accept4");
}

/* ---- connections ------------------------------------------------------- */

static bool send_chunks(struct source *conn)
{
	while (send(conn->fd, chunk, sizeof(chunk), MSG_NOSIGNAL) > 0)
		;
	return would_block();
}

static bool start_sending(struct source *conn)
{
	struct epoll_event event = { .events = EPOLLOUT, .data.ptr = conn };

	if (epoll_ctl(epoll_fd, EPOLL_CTL_MOD, conn->fd, &event))
		die("epoll_ctl");
	return send_chunks(conn);
}

/* With MSG_TRUNC nothing is copied: only its arrival counts. */
static bool discard(struct source *conn)
{
	ssize_t got = recv(conn->fd, NULL, BULK_CHUNK, MSG_TRUNC);

	return got > 0 || (got < 0 && would_block());
}

/* Small enough for any socket that has sent all it had to. */
static bool answer(struct source *conn, const char *text, size_t len)
{
	conn->have = 0;
	conn->want = 0;
	return send(conn->fd, text, len, MSG_NOSIGNAL) == (ssize_t)len;
}

static bool obey(struct source *conn)
{
	switch (conn->want) {
	case WANTS_KEPT:
		return answer(conn, ANSWER_KEPT, strlen(ANSWER_KEPT));
	case WANTS_ONCE:
		answer(conn, ANSWER_ONCE, strlen(ANSWER_ONCE));
		return false;
	case WANTS_DOWN:
		return start_sending(conn);
	case WANTS_UP:
		return true;
	}
	return false;
}

static bool is_whole(const struct source *conn)
{
	size_t end = strlen(REQUEST_END);

	return conn->have > WANTS_AT + end &&
	       !memcmp(conn->request + conn->have - end, REQUEST_END, end);
}

static bool take_request(struct source *conn)
{
	size_t room = sizeof(conn->request) - conn->have;
	ssize_t got = recv(conn->fd, conn->request + conn->have, room, 0);

	if (got < 0)
		return would_block();
	if (!got)
		return false;
	conn->have += got;
	if (!is_whole(conn))
		return conn->have < sizeof(conn->request);
	conn->want = conn->request[WANTS_AT];
	return obey(conn);
}

static void conn_ready(struct source *conn)
{
	bool stays;

	if (conn->want == WANTS_DOWN)
		stays = send_chunks(conn);
	else if (conn->want == WANTS_UP)
		stays = discard(conn);
	else
		stays = take_request(conn);
	if (!stays)
		conn_close(conn);
}

/* ---- datagrams --------------------------------------------------------- */

static void echo(int fd)
{
	static char data[DATAGRAM_BATCH][DATAGRAM_SIZE];
	struct sockaddr_in from[DATAGRAM_BATCH];
	struct mmsghdr messages[DATAGRAM_BATCH];
	struct iovec parts[DATAGRAM_BATCH];
	int got;

	for (int i = 0; i < DATAGRAM_BATCH; i++) {
		parts[i] = (struct iovec){ data[i], DATAGRAM_SIZE };
		messages[i].msg_hdr = (struct msghdr){
			.msg_name = &from[i],
			.msg_namelen = sizeof(from[i]),
			.msg_iov = &parts[i],
			.msg_iovlen = 1,
		};
	}
	got = recvmmsg(fd, messages, DATAGRAM_BATCH, MSG_DONTWAIT, NULL);
	for (int i = 0; i < got; i++)
		parts[i].iov_len = messages[i].msg_len;
	/* One that cannot be sent is lost, as datagrams are: the other end counts them. */
	if (got > 0)
		sendmmsg(fd, messages, got, MSG_DONTWAIT);
}

/* ---- ports ------------------------------------------------------------- */

static int bound(int type, uint16_t port)
{
	struct sockaddr_in any = { .sin_family = AF_INET, .sin_port = htons(port) };
	int fd = socket(AF_INET, type | SOCK_NONBLOCK, 0), on = 1;

	if (fd < 0)
		die("socket");
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if (bind(fd, (struct sockaddr *)&any, sizeof(any)))
		die("bind");
	return fd;
}

static void open_port(uint16_t port)
{
	int listener = bound(SOCK_STREAM, port);

	if (listen(listener, BACKLOG))
		die("listen");
	watch(KIND_LISTENER, listener);
	watch(KIND_DATAGRAMS, bound(SOCK_DGRAM, port));
}

static void ready(struct source *source)
{
	switch (source->kind) {
	case KIND_LISTENER:
		accept_all(source->fd);
		break;
	case KIND_DATAGRAMS:
		echo(source->fd);
		break;
	case KIND_CONN:
		conn_ready(source);
		break;
	}
}

int main(int argc, char **argv)
{
	struct epoll_event events[MAX_EVENTS];

	epoll_fd = epoll_create1(0);
	if (epoll_fd < 0)
		die("epoll_create1");
	for (int i = 1; i < argc; i++)
		open_port(atoi(argv[i]));
	for (;;) {
		int count = epoll_wait(epoll_fd, events, MAX_EVENTS, -1);

		for (int i = 0; i < count; i++)
			ready(events[i].data.ptr);
	}
}
