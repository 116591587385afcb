/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Preloaded into privmemd: makes the n-th of its allocations or system calls fail. A test says which through a file
 * that both map, whose path is in PRIVMEMD_FAIL. What is not of privmemd itself, but of the libraries that it calls, is
 * counted apart. A close(2) that fails closes nothing, which no kernel does: it counts only where a test names it. */

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/pidfd.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/timerfd.h>
#include <sys/uio.h>
#include <sys/vfs.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))

enum {
        OWN_MEMORY = 1 << 0,
        OWN_CALLS = 1 << 1,
        LIBRARY_MEMORY = 1 << 2,
        LIBRARY_CALLS = 1 << 3,
};

/* tests/integration/inject.py has the same. */
typedef struct Control {
        uint32_t which;    /* of the above; 0: nothing is counted */
        uint32_t nth;      /* to fail, from 1 */
        uint32_t for_ever; /* all from that on */
        uint32_t errnum;
        uint32_t reached, failed; /* how many */
        char only[32];            /* the function that counts; "": all */
        char name[32];            /* that failed last */
} Control;

void *__libc_malloc(size_t size);
void *__libc_calloc(size_t n, size_t size);
void *__libc_realloc(void *p, size_t size);

static Control *control;
static uintptr_t own_start, own_end;

/* The program itself is the first. */
static int find_own(struct dl_phdr_info *info, size_t size, void *userdata) {
        (void) size;
        (void) userdata;
        for (int i = 0; i < info->dlpi_phnum; i++) {
                const ElfW(Phdr) *header = &info->dlpi_phdr[i];

                if (header->p_type != PT_LOAD || !(header->p_flags & PF_X))
                        continue;
                own_start = info->dlpi_addr + header->p_vaddr;
                own_end = own_start + header->p_memsz;
        }
        return 1;
}

__attribute__((constructor)) static void begin(void) {
        const char *path = getenv("PRIVMEMD_FAIL");
        void *p;
        int fd;

        if (!path || strncmp(program_invocation_short_name, "privmemd", strlen("privmemd")) != 0)
                return;
        dl_iterate_phdr(find_own, NULL);
        fd = open(path, O_RDWR | O_CLOEXEC);
        p = fd >= 0 ? mmap(NULL, sizeof(Control), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) : MAP_FAILED;
        if (p == MAP_FAILED)
                abort();
        close(fd);
        control = p;
}

static bool is_meant(const char *name) {
        return control->only[0] ? strcmp(control->only, name) == 0 : strcmp(name, "close") != 0;
}

static bool must_fail(const char *name, bool is_memory, const void *caller) {
        bool is_own = (uintptr_t) caller >= own_start && (uintptr_t) caller < own_end;
        uint32_t which, reached;

        if (!control || control->which == 0)
                return false;
        which = is_memory ? is_own ? OWN_MEMORY : LIBRARY_MEMORY : is_own ? OWN_CALLS : LIBRARY_CALLS;
        if (!(control->which & which) || !is_meant(name))
                return false;
        reached = __atomic_add_fetch(&control->reached, 1, __ATOMIC_SEQ_CST);
        if (reached != control->nth && !(control->for_ever && reached > control->nth))
                return false;
        control->failed++;
        snprintf(control->name, sizeof(control->name), "%s", name);
        errno = is_memory ? ENOMEM : (int) control->errnum;
        return true;
}

/* ---- allocations ---- */

EXPORT void *malloc(size_t size) {
        return must_fail("malloc", true, __builtin_return_address(0)) ? NULL : __libc_malloc(size);
}

EXPORT void *calloc(size_t n, size_t size) {
        return must_fail("calloc", true, __builtin_return_address(0)) ? NULL : __libc_calloc(n, size);
}

EXPORT void *realloc(void *p, size_t size) {
        return must_fail("realloc", true, __builtin_return_address(0)) ? NULL : __libc_realloc(p, size);
}

EXPORT void *reallocarray(void *p, size_t n, size_t size) {
        size_t bytes;

        if (__builtin_mul_overflow(n, size, &bytes)) {
                errno = ENOMEM;
                return NULL;
        }
        return must_fail("reallocarray", true, __builtin_return_address(0)) ? NULL : __libc_realloc(p, bytes);
}

/* Or else it would be the C library that allocates. */
EXPORT char *strdup(const char *text) {
        size_t size = strlen(text) + 1;
        char *copy = must_fail("strdup", true, __builtin_return_address(0)) ? NULL : __libc_malloc(size);

        return copy ? memcpy(copy, text, size) : NULL;
}

/* ---- system calls ---- */

#define CALL(type, failed, name, parameters, arguments) \
        EXPORT type name parameters; \
        EXPORT type name parameters { \
                static __typeof__(&name) real; \
                if (!real) \
                        real = (__typeof__(&name)) dlsym(RTLD_NEXT, #name); \
                return must_fail(#name, false, __builtin_return_address(0)) ? (failed) : real arguments; \
        }

/* With one argument of any type behind the others. */
#define CALL_WITH_ONE_MORE(name, last, parameters, arguments) \
        EXPORT int name parameters; \
        EXPORT int name parameters { \
                static int(*real) parameters; \
                va_list ap; \
                long more; \
                if (!real) \
                        real = (__typeof__(real)) dlsym(RTLD_NEXT, #name); \
                va_start(ap, last); \
                more = va_arg(ap, long); \
                va_end(ap); \
                return must_fail(#name, false, __builtin_return_address(0)) ? -1 : real arguments; \
        }

CALL(int, -1, memfd_create, (const char *name, unsigned flags), (name, flags))
CALL(int, -1, ftruncate64, (int fd, off64_t size), (fd, size))
CALL(int, -1, fallocate64, (int fd, int mode, off64_t offset, off64_t size), (fd, mode, offset, size))
CALL(int, -1, close, (int fd), (fd))
CALL(int, -1, fchmod, (int fd, mode_t mode), (fd, mode))
CALL(int, -1, fchown, (int fd, uid_t uid, gid_t gid), (fd, uid, gid))
CALL(int, -1, fstat64, (int fd, struct stat64 *ret), (fd, ret))
CALL(int, -1, fstatfs64, (int fd, struct statfs64 *ret), (fd, ret))
CALL(int, -1, socketpair, (int domain, int type, int protocol, int ret[2]), (domain, type, protocol, ret))
CALL(int, -1, renameat, (int from, const char *old, int to, const char *new), (from, old, to, new))
CALL(int, -1, epoll_ctl, (int epoll, int operation, int fd, struct epoll_event *event), (epoll, operation, fd, event))
CALL(int, -1, timerfd_create, (clockid_t clock, int flags), (clock, flags))
CALL(int, -1, timerfd_settime, (int fd, int flags, const struct itimerspec *value, struct itimerspec *ret),
     (fd, flags, value, ret))
CALL(int, -1, pidfd_open, (pid_t pid, unsigned flags), (pid, flags))
CALL(int, -1, pidfd_getfd, (int pidfd, int fd, unsigned flags), (pidfd, fd, flags))
CALL(int, -1, pipe2, (int ret[2], int flags), (ret, flags))
CALL(int, -1, socket, (int domain, int type, int protocol), (domain, type, protocol))
CALL(int, -1, accept4, (int fd, struct sockaddr *ret, socklen_t *size, int flags), (fd, ret, size, flags))
CALL(ssize_t, -1, sendmsg, (int fd, const struct msghdr *message, int flags), (fd, message, flags))
CALL(ssize_t, -1, recvmsg, (int fd, struct msghdr *message, int flags), (fd, message, flags))
CALL(ssize_t, -1, recv, (int fd, void *bytes, size_t size, int flags), (fd, bytes, size, flags))
CALL(ssize_t, -1, pread64, (int fd, void *bytes, size_t size, off64_t offset), (fd, bytes, size, offset))
CALL(ssize_t, -1, pwritev64, (int fd, const struct iovec *io, int n, off64_t offset), (fd, io, n, offset))
CALL(ssize_t, -1, read, (int fd, void *bytes, size_t size), (fd, bytes, size))
CALL(ssize_t, -1, write, (int fd, const void *bytes, size_t size), (fd, bytes, size))
CALL(ssize_t, -1, getdents64, (int fd, void *bytes, size_t size), (fd, bytes, size))
CALL(ssize_t, -1, getrandom, (void *bytes, size_t size, unsigned flags), (bytes, size, flags))
CALL(ssize_t, -1, readlink, (const char *path, char *ret, size_t size), (path, ret, size))
CALL(ssize_t, -1, readlinkat, (int fd, const char *path, char *ret, size_t size), (fd, path, ret, size))
CALL(FILE *, NULL, fopen64, (const char *path, const char *mode), (path, mode))
CALL(FILE *, NULL, fdopen, (int fd, const char *mode), (fd, mode))
CALL(void *, MAP_FAILED, mmap64, (void *at, size_t size, int protection, int flags, int fd, off64_t offset),
     (at, size, protection, flags, fd, offset))

CALL_WITH_ONE_MORE(open64, flags, (const char *path, int flags, ...), (path, flags, more))
CALL_WITH_ONE_MORE(openat64, flags, (int fd, const char *path, int flags, ...), (fd, path, flags, more))
CALL_WITH_ONE_MORE(fcntl64, command, (int fd, int command, ...), (fd, command, more))

/* mbind(2), cachestat(2) */
EXPORT long syscall(long number, ...) {
        static long (*real)(long number, ...);
        long a[6];
        va_list ap;

        if (!real)
                real = (__typeof__(real)) dlsym(RTLD_NEXT, "syscall");
        va_start(ap, number);
        for (size_t i = 0; i < sizeof(a) / sizeof(*a); i++)
                a[i] = va_arg(ap, long);
        va_end(ap);
        return must_fail("syscall", false, __builtin_return_address(0)) ?
                       -1 :
                       real(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}
