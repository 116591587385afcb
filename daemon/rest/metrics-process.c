/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* What every program says of itself to Prometheus. */

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "rest/metrics-page.h"

static uint64_t cpu_usec(void) {
        struct rusage usage;

        if (getrusage(RUSAGE_SELF, &usage) < 0)
                return 0;
        return (uint64_t) (usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1000000 +
               (uint64_t) (usage.ru_utime.tv_usec + usage.ru_stime.tv_usec);
}

static uint64_t count_fds(void) {
        const struct dirent *entry;
        uint64_t n = 0;
        DIR *dir;

        dir = opendir("/proc/self/fd");
        if (!dir)
                return 0;
        while ((entry = readdir(dir)))
                n += entry->d_name[0] != '.';
        closedir(dir);
        return n > 0 ? n - 1 : 0; /* without that of the directory itself */
}

/* Pages: of the address space, and of them those that are resident. */
static void add_memory(MetricsPage *page) {
        unsigned long long total, resident;
        FILE *file;

        file = fopen("/proc/self/statm", "re");
        if (!file)
                return;
        if (fscanf(file, "%llu %llu", &total, &resident) == 2) {
                metrics_page_add(page, METRIC_PROCESS_VIRTUAL, total * (uint64_t) sysconf(_SC_PAGESIZE));
                metrics_page_add(page, METRIC_PROCESS_RESIDENT, resident * (uint64_t) sysconf(_SC_PAGESIZE));
        }
        fclose(file);
}

static uint64_t usec_of(clockid_t clock) {
        struct timespec now;

        clock_gettime(clock, &now);
        return (uint64_t) now.tv_sec * 1000000 + (uint64_t) now.tv_nsec / 1000;
}

/* CLOCK_REALTIME; field 22 of /proc/self/stat is in clock ticks since boot, and the name before it may have anything. */
static uint64_t start_usec(void) {
        char text[1024];
        unsigned long long ticks;
        const char *at;
        uint64_t boot;
        FILE *file;
        size_t n;

        file = fopen("/proc/self/stat", "re");
        if (!file)
                return 0;
        n = fread(text, 1, sizeof(text) - 1, file);
        fclose(file);
        text[n] = '\0';
        at = strrchr(text, ')');
        for (unsigned field = 2; at && field < 22; field++)
                at = strchr(at + 1, ' ');
        if (!at || sscanf(at, " %llu", &ticks) != 1)
                return 0;
        boot = usec_of(CLOCK_REALTIME) - usec_of(CLOCK_BOOTTIME);
        return boot + ticks * 1000000 / (uint64_t) sysconf(_SC_CLK_TCK);
}

static void add_usec(MetricsPage *page, MetricId id, uint64_t usec) {
        sample_begin(&page->samples[id], &metric_families[id], "");
        sample_end_usec(&page->samples[id], usec);
}

void metrics_page_add_process(MetricsPage *page) {
        struct rlimit limit;

        add_usec(page, METRIC_PROCESS_CPU, cpu_usec());
        add_usec(page, METRIC_PROCESS_START, start_usec());
        add_memory(page);
        metrics_page_add(page, METRIC_PROCESS_FDS, count_fds());
        if (getrlimit(RLIMIT_NOFILE, &limit) >= 0)
                metrics_page_add(page, METRIC_PROCESS_MAX_FDS, limit.rlim_cur);
}
