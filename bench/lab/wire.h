/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What load.c says to serve.c: requests that a web server would understand, of which the
 * sixth byte tells what is wanted.
 */
#ifndef BENCH_LAB_WIRE_H
#define BENCH_LAB_WIRE_H

#define WANTS_AT 5 /* "GET /k" */
#define WANTS_KEPT 'k'
#define WANTS_ONCE 'o'
#define WANTS_DOWN 'd'
#define WANTS_UP 'u'

#define REQUEST(letter) "GET /" letter " HTTP/1.1\r\nHost: bench\r\n\r\n"
#define REQUEST_END "\r\n\r\n"
#define REQUEST_MAX 256

#define ANSWER_KEPT "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok\n"
#define ANSWER_ONCE "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: close\r\n\r\nok\n"

#define BULK_CHUNK (256 * 1024)
#define DATAGRAM_SIZE 16
#define DATAGRAM_BATCH 64

#endif
