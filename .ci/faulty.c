// A machine that behaves badly, for a server that is started with LD_PRELOAD=faulty.so and FAULTY=FOLDER. In FOLDER:
//   sync_ms      each fsync and fdatasync first sleeps for as many milliseconds as this file says at that moment;
//   fail_folder  the next fsync of a folder of the name that stands in this file fails with EIO, and the file goes.
// FAULTY_CLOCK=SECONDS moves the clock. Build: cc -O1 -shared -fPIC -o faulty.so faulty.c -ldl
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static int setting(const char *name, char *text, size_t size) {
    const char *folder = getenv("FAULTY");
    char path[4096];
    if (!folder) return 0;
    snprintf(path, sizeof path, "%s/%s", folder, name);
    int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0) return 0;
    ssize_t length = read(file, text, size - 1);
    close(file);
    if (length <= 0) return 0;
    text[length] = 0;
    return 1;
}

static void nap(void) {
    char text[32];
    if (setting("sync_ms", text, sizeof text)) usleep(atol(text) * 1000);
}

static int fails(int fd) {
    char name[256], link[64], path[4096], flag[4096];
    if (!setting("fail_folder", name, sizeof name)) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length <= 0) return 0;
    path[length] = 0;
    const char *last = strrchr(path, '/');
    if (!last || strcmp(last + 1, name)) return 0;
    snprintf(flag, sizeof flag, "%s/fail_folder", getenv("FAULTY"));
    return unlink(flag) == 0;
}

int fdatasync(int fd) {
    static int (*real)(int);
    if (!real) real = dlsym(RTLD_NEXT, "fdatasync");
    nap();
    return real(fd);
}

int fsync(int fd) {
    static int (*real)(int);
    if (!real) real = dlsym(RTLD_NEXT, "fsync");
    nap();
    if (fails(fd)) {
        errno = EIO;
        return -1;
    }
    return real(fd);
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
    int code = real(clock, now);
    const char *seconds = getenv("FAULTY_CLOCK");
    if (code == 0 && clock == CLOCK_REALTIME && seconds) now->tv_sec += atol(seconds);
    return code;
}
