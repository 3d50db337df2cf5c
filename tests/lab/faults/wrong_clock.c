// SPDX-License-Identifier: Apache-2.0
/* Preloaded into a process, it makes that one's clock wrong by as many seconds as the file named in
 * WRONG_CLOCK says: eight bytes, which may change at any time. The clocks that measure how long
 * things take stay right, as they do on a machine whose clock is set.
 */
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static const volatile int64_t right;
static const volatile int64_t *ahead_s = &right;

__attribute__((constructor)) static void open_clock(void)
{
	const char *path = getenv("WRONG_CLOCK");
	int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;

	if (file < 0)
		return;
	void *found = mmap(NULL, sizeof(right), PROT_READ, MAP_SHARED, file, 0);

	if (found != MAP_FAILED)
		ahead_s = found;
	close(file);
}

int clock_gettime(clockid_t clock, struct timespec *now)
{
	int failed = (int)syscall(SYS_clock_gettime, clock, now);

	if (!failed && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
		now->tv_sec += *ahead_s;
	return failed;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone)
{
	struct timespec precise;

	(void)zone;
	clock_gettime(CLOCK_REALTIME, &precise);
	now->tv_sec = precise.tv_sec;
	now->tv_usec = precise.tv_nsec / 1000;
	return 0;
}

time_t time(time_t *also)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	if (also)
		*also = now.tv_sec;
	return now.tv_sec;
}
