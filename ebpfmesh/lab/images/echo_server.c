// SPDX-License-Identifier: Apache-2.0
/*
 * The lab's backend: says who answered, and whom it saw as its peer.
 *
 *   echo-server [--http PORT]... [--udp PORT]... [--listen-delay-ms N] [--linger-ms N]
 *               [--idle-ms N]
 *   echo-server check [--http PORT]     exit 0 if GET /healthz answers 200
 *
 *   GET  /            one line of JSON: host, peer, local, protocol
 *   GET  /bytes/N     N bytes that anyone can compute: see fill_pattern()
 *   GET  /healthz     200, or 503 while /tmp/unhealthy exists
 *   POST /upload      (or PUT) length and zlib's crc32 of the body
 *
 * UDP answers the same JSON line, then the datagram itself.
 *
 * SIGTERM closes the listeners, lets every request in flight finish, and exits. For
 * --linger-ms before that, kept connections and datagrams are still answered, the
 * former for a last time, with "Connection: close": a server that closes them between
 * two requests may cross the next one on its way. It goes on for up to --idle-ms more
 * while there are connections that have not been asked in that time.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define MAX_PORTS 32
#define MAX_EVENTS 64
#define REQUEST_MAX 8192
#define RESPONSE_MAX 1024
#define CHUNK_SIZE 65536
#define DATAGRAM_MAX 65535
#define DEFAULT_PORT 80
#define CHECK_TIMEOUT_S 3
#define UNHEALTHY_FILE "/tmp/unhealthy"

/* A prime period: a segment that is lost or moved cannot go unseen. */
#define PATTERN_PERIOD 65521

enum kind {
	KIND_SIGNAL,
	KIND_LISTENER,
	KIND_UDP,
	KIND_CONN
};

struct source {
	enum kind kind;
	int fd;
};

struct endpoints {
	struct sockaddr_in peer;
	struct sockaddr_in local;
};

struct conn {
	struct source source; /* first: epoll hands back its address */
	struct conn *next, **link;
	struct endpoints ends;

	char request[REQUEST_MAX + 1];
	size_t request_len;

	bool uploading;
	uint64_t upload_len, upload_left;
	uint32_t upload_crc;

	char response[RESPONSE_MAX];
	size_t response_len, response_sent;
	uint64_t pattern_at, pattern_end;

	bool close_after;
	uint32_t armed; /* events that epoll watches */
};

struct request {
	char method[8];
	char path[256];
	uint64_t length;
	bool has_length;
	bool close;
	bool expects_continue;
};

struct ports {
	uint16_t port[MAX_PORTS];
	size_t count;
};

static int epoll_fd;
static bool stopping;
static int linger_ms, idle_ms;
static int64_t lingers_until_ms, closing_at_ms; /* once stopping */
static bool closing; /* kept connections and datagrams are not served any more */
static struct source listeners[2 * MAX_PORTS];
static size_t listener_count;
static struct conn *conns;
static char host_name[256];
static unsigned char pattern[PATTERN_PERIOD + CHUNK_SIZE];
static uint32_t crc_table[256];

static void die(const char *what)
{
	perror(what);
	exit(1);
}

static int64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* ---- bytes ------------------------------------------------------------- */

/* x' = x * 1664525 + 1013904223 (mod 2^32) from x = 1; the byte is x' >> 24. */
static void fill_pattern(void)
{
	uint32_t x = 1;

	for (size_t i = 0; i < PATTERN_PERIOD; i++) {
		x = x * 1664525u + 1013904223u;
		pattern[i] = x >> 24;
	}
	/* Any CHUNK_SIZE bytes from within the period can be sent as they lie. */
	for (size_t i = PATTERN_PERIOD; i < sizeof(pattern); i++)
		pattern[i] = pattern[i - PATTERN_PERIOD];
}

static void fill_crc_table(void)
{
	for (uint32_t i = 0; i < 256; i++) {
		uint32_t c = i;

		for (int bit = 0; bit < 8; bit++)
			c = c & 1 ? 0xedb88320u ^ (c >> 1) : c >> 1;
		crc_table[i] = c;
	}
}

static uint32_t crc32(uint32_t crc, const void *data, size_t len)
{
	const unsigned char *byte = data;

	crc = ~crc;
	while (len--)
		crc = crc_table[(crc ^ *byte++) & 0xff] ^ (crc >> 8);
	return ~crc;
}

static int describe(char *out, size_t size, const struct endpoints *ends, const char *protocol)
{
	char peer[INET_ADDRSTRLEN], local[INET_ADDRSTRLEN];

	inet_ntop(AF_INET, &ends->peer.sin_addr, peer, sizeof(peer));
	inet_ntop(AF_INET, &ends->local.sin_addr, local, sizeof(local));
	return snprintf(out, size,
			"{\"host\": \"%s\", \"peer\": \"%s\", \"peer_port\": %u, "
			"\"local\": \"%s\", \"local_port\": %u, "
			"\"protocol\": \"%s\"}\n",
			host_name, peer, ntohs(ends->peer.sin_port), local,
			ntohs(ends->local.sin_port), protocol);
}

/* ---- connections ------------------------------------------------------- */

static void watch(struct source *source, uint32_t events)
{
	struct epoll_event event = { .events = events, .data.ptr = source };

	if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, source->fd, &event))
		die("epoll_ctl");
}

static void conn_open(int fd, const struct sockaddr_in *peer)
{
	struct conn *conn = calloc(1, sizeof(*conn));
	socklen_t len = sizeof(conn->ends.local);
	int on = 1;

	if (!conn)
		die("calloc");
	conn->source = (struct source){ KIND_CONN, fd };
	conn->ends.peer = *peer;
	if (getsockname(fd, (struct sockaddr *)&conn->ends.local, &len))
		die("getsockname");
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));

	conn->next = conns;
	conn->link = &conns;
	if (conns)
		conns->link = &conn->next;
	conns = conn;

	conn->armed = EPOLLIN;
	watch(&conn->source, EPOLLIN);
}

static void conn_close(struct conn *conn)
{
	*conn->link = conn->next;
	if (conn->next)
		conn->next->link = conn->link;
	close(conn->source.fd);
	free(conn);
}

static bool conn_sending(const struct conn *conn)
{
	return conn->response_sent < conn->response_len || conn->pattern_at < conn->pattern_end;
}

static bool conn_idle(const struct conn *conn)
{
	return !conn_sending(conn) && !conn->uploading && !conn->request_len;
}

static void conn_arm(struct conn *conn)
{
	uint32_t events = conn_sending(conn) ? EPOLLOUT : EPOLLIN;
	struct epoll_event event = { .events = events, .data.ptr = conn };

	if (events == conn->armed)
		return;
	conn->armed = events;
	if (epoll_ctl(epoll_fd, EPOLL_CTL_MOD, conn->source.fd, &event))
		die("epoll_ctl");
}

/* ---- requests ---------------------------------------------------------- */

static void respond_head(struct conn *conn, const char *status, const char *type, uint64_t length)
{
	conn->response_sent = 0;
	conn->response_len = snprintf(conn->response, RESPONSE_MAX,
				      "HTTP/1.1 %s\r\n"
				      "Content-Type: %s\r\n"
				      "Content-Length: %llu\r\n"
				      "Connection: %s\r\n\r\n",
				      status, type, (unsigned long long)length,
				      conn->close_after ? "close" : "keep-alive");
}

static void respond_text(struct conn *conn, const char *status, const char *type, const char *body)
{
	size_t length = strlen(body);

	respond_head(conn, status, type, length);
	memcpy(conn->response + conn->response_len, body, length);
	conn->response_len += length;
}

static void respond_error(struct conn *conn, const char *status)
{
	char body[64];

	conn->close_after = true;
	snprintf(body, sizeof(body), "%s\n", status);
	respond_text(conn, status, "text/plain", body);
}

static void answer_identity(struct conn *conn)
{
	char body[RESPONSE_MAX / 2];

	describe(body, sizeof(body), &conn->ends, "tcp");
	respond_text(conn, "200 OK", "application/json", body);
}

static void answer_health(struct conn *conn)
{
	bool healthy = access(UNHEALTHY_FILE, F_OK) != 0;

	respond_text(conn, healthy ? "200 OK" : "503 Service Unavailable", "text/plain",
		     healthy ? "healthy\n" : "unhealthy\n");
}

static void answer_bytes(struct conn *conn, const char *count)
{
	char *end;
	uint64_t length = strtoull(count, &end, 10);

	if (!isdigit((unsigned char)*count) || *end) {
		respond_error(conn, "400 Bad Request");
		return;
	}
	respond_head(conn, "200 OK", "application/octet-stream", length);
	conn->pattern_at = 0;
	conn->pattern_end = length;
}

static void answer_upload(struct conn *conn)
{
	char body[128];

	snprintf(body, sizeof(body), "{\"length\": %llu, \"crc32\": \"%08x\"}\n",
		 (unsigned long long)conn->upload_len, conn->upload_crc);
	conn->uploading = false;
	respond_text(conn, "200 OK", "application/json", body);
}

static size_t upload_feed(struct conn *conn, const char *data, size_t len)
{
	if (len > conn->upload_left)
		len = conn->upload_left;
	conn->upload_crc = crc32(conn->upload_crc, data, len);
	conn->upload_left -= len;
	if (!conn->upload_left)
		answer_upload(conn);
	return len;
}

static void upload_begin(struct conn *conn, const struct request *request)
{
	static const char go_on[] = "HTTP/1.1 100 Continue\r\n\r\n";

	if (!request->has_length) {
		respond_error(conn, "411 Length Required");
		return;
	}
	conn->uploading = true;
	conn->upload_len = request->length;
	conn->upload_left = request->length;
	conn->upload_crc = 0;
	/* The socket's buffer is empty here: 25 bytes fit, or the peer is gone. */
	if (request->expects_continue && request->length &&
	    send(conn->source.fd, go_on, sizeof(go_on) - 1, MSG_NOSIGNAL) < 0)
		conn->close_after = true;
	upload_feed(conn, "", 0);
}

static const char *header_value(const char *line, const char *name)
{
	size_t len = strlen(name);

	if (strncasecmp(line, name, len) || line[len] != ':')
		return NULL;
	line += len + 1;
	return line + strspn(line, " \t");
}

static void parse_header(const char *line, struct request *request)
{
	const char *value;

	if ((value = header_value(line, "Content-Length"))) {
		request->length = strtoull(value, NULL, 10);
		request->has_length = true;
	} else if ((value = header_value(line, "Connection"))) {
		request->close = !strncasecmp(value, "close", 5);
	} else if ((value = header_value(line, "Expect"))) {
		request->expects_continue = !strncasecmp(value, "100-", 4);
	}
}

static bool parse_request(char *head, struct request *request)
{
	char *line = strtok(head, "\r\n");
	int minor;

	memset(request, 0, sizeof(*request));
	if (!line ||
	    sscanf(line, "%7s %255s HTTP/1.%d", request->method, request->path, &minor) != 3)
		return false;
	request->close = minor == 0;
	while ((line = strtok(NULL, "\r\n")))
		parse_header(line, request);
	return true;
}

static void dispatch(struct conn *conn, const struct request *request)
{
	bool get = !strcmp(request->method, "GET");
	bool put = !strcmp(request->method, "POST") || !strcmp(request->method, "PUT");

	if (get && !strcmp(request->path, "/"))
		answer_identity(conn);
	else if (get && !strcmp(request->path, "/healthz"))
		answer_health(conn);
	else if (get && !strncmp(request->path, "/bytes/", 7))
		answer_bytes(conn, request->path + 7);
	else if (put && !strcmp(request->path, "/upload"))
		upload_begin(conn, request);
	else
		respond_error(conn, "404 Not Found");
}

/* Takes what it can use from the front of what has been read. */
static size_t take_request(struct conn *conn)
{
	struct request request;
	char *end;
	size_t len;

	if (conn->uploading)
		return upload_feed(conn, conn->request, conn->request_len);

	conn->request[conn->request_len] = '\0';
	end = strstr(conn->request, "\r\n\r\n");
	if (!end) {
		if (conn->request_len == REQUEST_MAX)
			respond_error(conn, "431 Request Header Fields Too Large");
		return 0;
	}
	len = end + 4 - conn->request;
	*end = '\0';
	if (!parse_request(conn->request, &request)) {
		respond_error(conn, "400 Bad Request");
		return len;
	}
	conn->close_after |= request.close || stopping;
	dispatch(conn, &request);
	return len;
}

static void take_requests(struct conn *conn)
{
	while (conn->request_len && !conn_sending(conn)) {
		size_t taken = take_request(conn);

		if (!taken)
			return;
		conn->request_len -= taken;
		memmove(conn->request, conn->request + taken, conn->request_len);
	}
}

/* ---- input and output -------------------------------------------------- */

/* Bodies go past the request buffer; false: the connection is of no more use. */
static bool conn_read(struct conn *conn)
{
	static char body[CHUNK_SIZE];
	bool bulk = conn->uploading && !conn->request_len;
	char *to = bulk ? body : conn->request + conn->request_len;
	size_t room = bulk ? CHUNK_SIZE : REQUEST_MAX - conn->request_len;
	ssize_t got;

	if (bulk && room > conn->upload_left)
		room = conn->upload_left;
	got = recv(conn->source.fd, to, room, 0);
	if (got < 0)
		return errno == EAGAIN || errno == EINTR;
	if (got == 0)
		return false;
	if (bulk)
		upload_feed(conn, body, got);
	else
		conn->request_len += got;
	return true;
}

static ssize_t send_some(struct conn *conn)
{
	const void *from = conn->response + conn->response_sent;
	size_t len = conn->response_len - conn->response_sent;

	if (!len) {
		uint64_t left = conn->pattern_end - conn->pattern_at;

		from = pattern + conn->pattern_at % PATTERN_PERIOD;
		len = left < CHUNK_SIZE ? left : CHUNK_SIZE;
	}
	return send(conn->source.fd, from, len, MSG_NOSIGNAL);
}

static bool conn_write(struct conn *conn)
{
	while (conn_sending(conn)) {
		ssize_t sent = send_some(conn);

		if (sent < 0)
			return errno == EAGAIN || errno == EINTR;
		if (conn->response_sent < conn->response_len)
			conn->response_sent += sent;
		else
			conn->pattern_at += sent;
	}
	return true;
}

/* Answers until the peer has to send more, or to read more. */
static bool conn_advance(struct conn *conn)
{
	for (;;) {
		take_requests(conn);
		if (!conn_sending(conn))
			return !conn->close_after;
		if (!conn_write(conn))
			return false;
		if (conn_sending(conn))
			return true;
		if (conn->close_after)
			return false;
	}
}

static void serve_conn(struct conn *conn, uint32_t events)
{
	bool useful = true;

	if (events & (EPOLLIN | EPOLLHUP | EPOLLERR) && !conn_sending(conn))
		useful = conn_read(conn);
	if (useful)
		useful = conn_advance(conn);
	if (useful && !(closing && conn_idle(conn)))
		conn_arm(conn);
	else
		conn_close(conn);
}

static bool serve_listener(int listener)
{
	struct sockaddr_in peer;
	socklen_t len = sizeof(peer);
	int fd = accept4(listener, (struct sockaddr *)&peer, &len, SOCK_NONBLOCK | SOCK_CLOEXEC);

	if (fd >= 0)
		conn_open(fd, &peer);
	return fd >= 0;
}

/* The answer leaves from the address that was asked, whichever that is. False if there is none to
 * give.
 */
static bool serve_datagram(int fd)
{
	static char in[DATAGRAM_MAX];
	char line[RESPONSE_MAX], control[CMSG_SPACE(sizeof(struct in_pktinfo))];
	struct endpoints ends = { 0 };
	socklen_t len = sizeof(ends.local);
	struct iovec iov[2] = { { in, sizeof(in) } };
	struct msghdr msg = {
		.msg_name = &ends.peer,
		.msg_namelen = sizeof(ends.peer),
		.msg_iov = iov,
		.msg_iovlen = 1,
		.msg_control = control,
		.msg_controllen = sizeof(control),
	};
	ssize_t got = recvmsg(fd, &msg, 0);
	struct cmsghdr *cmsg = got < 0 ? NULL : CMSG_FIRSTHDR(&msg);
	struct in_pktinfo info;

	if (!cmsg || cmsg->cmsg_type != IP_PKTINFO)
		return got >= 0;
	getsockname(fd, (struct sockaddr *)&ends.local, &len);
	memcpy(&info, CMSG_DATA(cmsg), sizeof(info));
	ends.local.sin_addr = info.ipi_spec_dst;
	info.ipi_ifindex = 0;
	memcpy(CMSG_DATA(cmsg), &info, sizeof(info));

	iov[0] = (struct iovec){ line, describe(line, sizeof(line), &ends, "udp") };
	iov[1] = (struct iovec){ in, got };
	msg.msg_iovlen = 2;
	if (sendmsg(fd, &msg, 0) < 0)
		perror("sendmsg");
	return true;
}

/* Each connection is an event of its own, all datagrams together are one: on a busy machine they
 * would wait until nobody wants their answers any more.
 */
static void serve_udp(int fd)
{
	for (int i = 0; i < MAX_EVENTS && serve_datagram(fd); i++)
		;
}

static void close_sources(enum kind kind)
{
	for (size_t i = 0; i < listener_count; i++) {
		if (listeners[i].kind != kind || listeners[i].fd < 0)
			continue;
		close(listeners[i].fd);
		listeners[i].fd = -1;
	}
}

/* Whoever is connected already would be reset with the listener: they are let in first. */
static void stop(void)
{
	stopping = true;
	lingers_until_ms = now_ms() + linger_ms;
	closing_at_ms = lingers_until_ms + idle_ms;
	for (size_t i = 0; i < listener_count; i++)
		while (listeners[i].kind == KIND_LISTENER && serve_listener(listeners[i].fd))
			;
	close_sources(KIND_LISTENER);
}

/* A request that has arrived unread is in flight: it is answered, too. */
static void finish_idle(void)
{
	struct conn *conn, *next;

	for (conn = conns; conn; conn = next) {
		next = conn->next;
		if (conn_idle(conn))
			serve_conn(conn, EPOLLIN);
	}
}

/* ---- start ------------------------------------------------------------- */

static void open_port(enum kind kind, uint16_t port)
{
	struct sockaddr_in any = { .sin_family = AF_INET, .sin_port = htons(port) };
	int type = kind == KIND_UDP ? SOCK_DGRAM : SOCK_STREAM;
	int fd = socket(AF_INET, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	int on = 1;

	if (fd < 0)
		die("socket");
	if (kind == KIND_UDP)
		setsockopt(fd, IPPROTO_IP, IP_PKTINFO, &on, sizeof(on));
	else
		setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if (bind(fd, (struct sockaddr *)&any, sizeof(any)))
		die("bind");
	if (kind == KIND_LISTENER && listen(fd, SOMAXCONN))
		die("listen");
	listeners[listener_count] = (struct source){ kind, fd };
	watch(&listeners[listener_count++], EPOLLIN);
}

static void watch_signals(struct source *source)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigprocmask(SIG_BLOCK, &set, NULL);
	source->kind = KIND_SIGNAL;
	source->fd = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
	if (source->fd < 0)
		die("signalfd");
	watch(source, EPOLLIN);
}

static void serve_event(struct epoll_event *event)
{
	struct source *source = event->data.ptr;

	if (source->fd < 0) /* closed by stop(), earlier in this batch */
		return;
	switch (source->kind) {
	case KIND_SIGNAL:
		stop();
		epoll_ctl(epoll_fd, EPOLL_CTL_DEL, source->fd, NULL);
		break;
	case KIND_LISTENER:
		serve_listener(source->fd);
		break;
	case KIND_UDP:
		serve_udp(source->fd);
		break;
	case KIND_CONN:
		serve_conn((struct conn *)source, event->events);
		break;
	}
}

static int patience_ms(void)
{
	int64_t left = (conns ? closing_at_ms : lingers_until_ms) - now_ms();

	if (!stopping || closing)
		return -1;
	return left > 0 ? left : 0;
}

static void serve(const struct ports *http, const struct ports *udp, int delay_ms)
{
	struct source signals;
	struct epoll_event events[MAX_EVENTS];

	epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (epoll_fd < 0)
		die("epoll_create1");
	watch_signals(&signals);
	if (delay_ms && epoll_wait(epoll_fd, events, 1, delay_ms) > 0)
		return;
	for (size_t i = 0; i < http->count; i++)
		open_port(KIND_LISTENER, http->port[i]);
	for (size_t i = 0; i < udp->count; i++)
		open_port(KIND_UDP, udp->port[i]);

	while (!closing || conns) {
		int count = epoll_wait(epoll_fd, events, MAX_EVENTS, patience_ms());

		for (int i = 0; i < count; i++)
			serve_event(&events[i]);
		if (!stopping || patience_ms() > 0)
			continue;
		closing = true;
		close_sources(KIND_UDP);
		finish_idle(); /* only now does no event point to a connection */
	}
}

static int check(uint16_t port)
{
	static const char ask[] = "GET /healthz HTTP/1.0\r\n\r\n";
	static const char ok[] = "HTTP/1.1 200 ";
	struct sockaddr_in to = {
		.sin_family = AF_INET,
		.sin_port = htons(port),
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK),
	};
	char answer[sizeof(ok) - 1];
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	alarm(CHECK_TIMEOUT_S);
	if (connect(fd, (struct sockaddr *)&to, sizeof(to)) ||
	    send(fd, ask, sizeof(ask) - 1, MSG_NOSIGNAL) < 0 ||
	    recv(fd, answer, sizeof(answer), MSG_WAITALL) != sizeof(answer))
		return 1;
	return memcmp(answer, ok, sizeof(answer)) != 0;
}

static void usage(void)
{
	fprintf(stderr, "usage: echo-server [check] [--http PORT]... "
			"[--udp PORT]... [--listen-delay-ms N] [--linger-ms N] "
			"[--idle-ms N]\n");
	exit(2);
}

static long number(const char *text, long max)
{
	char *end;
	long value = strtol(text, &end, 10);

	if (end == text || *end || value < 0 || value > max)
		usage();
	return value;
}

static void add_port(struct ports *ports, const char *text)
{
	if (ports->count == MAX_PORTS)
		usage();
	ports->port[ports->count++] = number(text, UINT16_MAX);
}

int main(int argc, char **argv)
{
	bool checking = argc > 1 && !strcmp(argv[1], "check");
	struct ports http = { 0 }, udp = { 0 };
	int delay_ms = 0;

	for (int i = checking ? 2 : 1; i < argc; i += 2) {
		if (i + 1 == argc)
			usage();
		if (!strcmp(argv[i], "--http"))
			add_port(&http, argv[i + 1]);
		else if (!strcmp(argv[i], "--udp"))
			add_port(&udp, argv[i + 1]);
		else if (!strcmp(argv[i], "--listen-delay-ms"))
			delay_ms = number(argv[i + 1], INT32_MAX);
		else if (!strcmp(argv[i], "--linger-ms"))
			linger_ms = number(argv[i + 1], INT32_MAX);
		else if (!strcmp(argv[i], "--idle-ms"))
			idle_ms = number(argv[i + 1], INT32_MAX);
		else
			usage();
	}
	if (checking)
		return check(http.count ? http.port[0] : DEFAULT_PORT);
	if (!http.count && !udp.count) {
		http.port[http.count++] = DEFAULT_PORT;
		udp.port[udp.count++] = DEFAULT_PORT;
	}
	gethostname(host_name, sizeof(host_name) - 1);
	fill_pattern();
	fill_crc_table();
	serve(&http, &udp, delay_ms);
	return 0;
}
