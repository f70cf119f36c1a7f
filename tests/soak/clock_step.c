/* Moves the wall clock of one process: seconds are read from the file that CLOCK_STEP_FILE names, at every call.
 *
 * Preloaded into the service. Only CLOCK_REALTIME moves, as when an administrator or NTP sets the system's clock.
 * (libfaketime refuses some sleeps of Python 3.11 with EINVAL, so it cannot be used for this.)
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static const volatile long *offset;

__attribute__((constructor)) static void open_offset(void)
{
	const char *path = getenv("CLOCK_STEP_FILE");
	int handle = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
	void *page = handle < 0 ? MAP_FAILED : mmap(NULL, sizeof(long), PROT_READ, MAP_SHARED, handle, 0);

	if (page != MAP_FAILED)
		offset = page;
	if (handle >= 0)
		close(handle);
}

int clock_gettime(clockid_t id, struct timespec *now)
{
	int failed = (int)syscall(SYS_clock_gettime, id, now);

	if (!failed && offset && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE))
		now->tv_sec += *offset;
	return failed;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone)
{
	struct timespec precise;
	int failed = clock_gettime(CLOCK_REALTIME, &precise);

	(void)zone;
	now->tv_sec = precise.tv_sec;
	now->tv_usec = precise.tv_nsec / 1000;
	return failed;
}

time_t time(time_t *result)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	if (result)
		*result = now.tv_sec;
	return now.tv_sec;
}
