/* Preloaded: stalls write() to files whose path contains SLOW_WRITE_PATH, and to no others.
 *
 * SLOW_WRITE_STALL of every SLOW_WRITE_PERIOD milliseconds, counted from SLOW_WRITE_FROM (of the monotonic clock, in
 * milliseconds), a write waits until the stall is over. A period of 0: every write waits SLOW_WRITE_STALL.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

static long number(const char *name)
{
    const char *text = getenv(name);
    return text ? atol(text) : 0;
}

static void stall(int fd)
{
    const char *part = getenv("SLOW_WRITE_PATH");
    char link[64], path[4096];
    if (!part)
        return;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0)
        return;
    path[length] = 0;
    if (!strstr(path, part))
        return;
    long period = number("SLOW_WRITE_PERIOD"), wait = number("SLOW_WRITE_STALL");
    if (period > 0) {
        struct timespec now;
        clock_gettime(CLOCK_MONOTONIC, &now);
        long since = now.tv_sec * 1000 + now.tv_nsec / 1000000 - number("SLOW_WRITE_FROM");
        if (since < 0)
            return;
        wait -= since % period;
    }
    if (wait > 0) {
        struct timespec pause = {wait / 1000, wait % 1000 * 1000000};
        while (nanosleep(&pause, &pause))
            ;
    }
}

ssize_t write(int fd, const void *data, size_t size)
{
    static ssize_t (*real)(int, const void *, size_t);
    if (!real)
        real = (ssize_t(*)(int, const void *, size_t))dlsym(RTLD_NEXT, "write");
    stall(fd);
    return real(fd, data, size);
}

ssize_t writev(int fd, const struct iovec *parts, int count)
{
    static ssize_t (*real)(int, const struct iovec *, int);
    if (!real)
        real = (ssize_t(*)(int, const struct iovec *, int))dlsym(RTLD_NEXT, "writev");
    stall(fd);
    return real(fd, parts, count);
}
