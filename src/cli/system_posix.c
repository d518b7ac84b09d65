/* Linux and its like; what a machine is, is read from /proc and /sys. */
#define _DEFAULT_SOURCE
#define _XOPEN_SOURCE 700      /* nftw */
#include "system.h"
#include <ftw.h>
#include <glob.h>
#include <limits.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

void system_start(void) { signal(SIGPIPE, SIG_IGN); }

void system_on_interrupt(void (*handler)(int number))
{
    struct sigaction action = {.sa_handler = handler, .sa_flags = SA_RESETHAND | SA_RESTART};
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
}

bool system_is_terminal(FILE *f) { return isatty(fileno(f)); }

bool system_is_pipe(FILE *f)
{
    struct stat info;
    return fstat(fileno(f), &info) == 0 && (S_ISFIFO(info.st_mode) || S_ISSOCK(info.st_mode));
}

/* ---------------------------------------------------------------- files and folders */

enum system_file system_file_kind(const char *path)
{
    struct stat info;
    if (stat(path, &info) != 0) return SYSTEM_NONE;
    return S_ISDIR(info.st_mode) ? SYSTEM_FOLDER : S_ISREG(info.st_mode) ? SYSTEM_REGULAR : SYSTEM_OTHER;
}

bool system_real_path(const char *path, char *real, size_t size)
{
    char *found = realpath(path, NULL);
    bool fits = found && strlen(found) < size;
    if (fits) strcpy(real, found);
    free(found);
    return fits;
}

bool system_program_folder(char *path, size_t size)
{
    ssize_t n = readlink("/proc/self/exe", path, size - 1);
    path[n > 0 ? n : 0] = 0;
    char *slash = strrchr(path, '/');
    if (slash) *slash = 0;
    return slash != NULL;
}

bool system_cache_folder(char *path, size_t size)
{
    const char *cache = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    int n = cache && *cache == '/' ? snprintf(path, size, "%s", cache) : home && *home ? snprintf(path, size, "%s/.cache", home) : -1;
    if (n < 0 || (size_t)n >= size) return false;
    mkdir(path, 0700);
    return true;
}

bool system_temporary_folder(const char *prefix, char *path, size_t size)
{
    const char *tmp = getenv("TMPDIR");
    if (!tmp || !*tmp) tmp = "/tmp";
    int n = snprintf(path, size, "%s/%s-XXXXXX", tmp, prefix);
    if (n > 0 && (size_t)n < size && mkdtemp(path)) return true;
    snprintf(path, size, "%s", tmp);
    return false;
}

static int remove_entry(const char *path, const struct stat *info, int flag, struct FTW *ftw)
{
    (void)info; (void)flag; (void)ftw;
    remove(path);
    return 0;
}

void system_remove_folder(const char *path) { nftw(path, remove_entry, 16, FTW_DEPTH | FTW_PHYS); }

void system_set_variable(const char *name, const char *value)
{
    if (value) setenv(name, value, 1);
    else unsetenv(name);
}

/* ---------------------------------------------------------------- the process */

uint64_t system_seed(void)
{
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (uint64_t)t.tv_sec << 30 ^ (uint64_t)t.tv_nsec ^ (uint64_t)getpid() << 40;
}

double system_cpu_seconds(void)
{
    struct rusage u = {0};
    getrusage(RUSAGE_SELF, &u);
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) + 1e-6 * (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec);
}

double system_peak_bytes(void)
{
    struct rusage u = {0};
    getrusage(RUSAGE_SELF, &u);
#if defined(__APPLE__)
    return (double)u.ru_maxrss;
#else
    return 1024 * (double)u.ru_maxrss;
#endif
}

/* ---------------------------------------------------------------- the machine */

/* First line of a file, without its end; false and "" if it cannot be read. */
static bool first_line(const char *path, char *text, size_t size)
{
    FILE *f = fopen(path, "r");
    bool ok = f && fgets(text, (int)size, f);
    if (f) fclose(f);
    if (!ok) text[0] = 0;
    text[strcspn(text, "\r\n")] = 0;
    return ok;
}

/* The largest of "key : number" over the lines of a file such as /proc/cpuinfo; 0 if there is none. */
static double largest_of(const char *path, const char *key)
{
    char line[1024];
    double largest = 0;
    FILE *f = fopen(path, "r");
    while (f && fgets(line, sizeof line, f)) {
        const char *colon = strchr(line, ':');
        if (colon && strncmp(line, key, strlen(key)) == 0 && atof(colon + 1) > largest) largest = atof(colon + 1);
    }
    if (f) fclose(f);
    return largest;
}

static void cpu_name(char *text, size_t size)
{
    static const char *const keys[] = {"model name", "Model", "Hardware", "cpu model"};
    char line[1024];
    snprintf(text, size, "unknown");
    for (size_t i = 0; i < VKM_COUNT(keys); i++) {
        FILE *f = fopen("/proc/cpuinfo", "r");
        bool found = false;
        while (f && !found && fgets(line, sizeof line, f)) {
            const char *colon = strchr(line, ':');
            found = colon && strncmp(line, keys[i], strlen(keys[i])) == 0;
            line[strcspn(line, "\r\n")] = 0;
            if (found) snprintf(text, size, "%s", colon + 1 + strspn(colon + 1, " \t"));
        }
        if (f) fclose(f);
        if (found) return;
    }
}

static void os_name(char *text, size_t size, const struct utsname *u)
{
    char line[256], name[128] = "";
    FILE *f = fopen("/etc/os-release", "r");
    while (f && fgets(line, sizeof line, f))
        if (sscanf(line, "PRETTY_NAME=\"%127[^\"]", name) == 1) break;
    if (f) fclose(f);
    snprintf(text, size, "%s%s%s %s", name, *name ? ", " : "", u->sysname, u->release);
}

void system_facts(struct system_facts *facts)
{
    struct utsname u;
    if (uname(&u) != 0) u = (struct utsname){.sysname = "unknown", .machine = "unknown"};
    *facts = (struct system_facts){0};
    os_name(facts->os, sizeof facts->os, &u);
    snprintf(facts->machine, sizeof facts->machine, "%.63s", u.machine);
    cpu_name(facts->cpu, sizeof facts->cpu);
    facts->n_cpus = (uint32_t)sysconf(_SC_NPROCESSORS_ONLN);
    facts->memory_bytes = 1024 * largest_of("/proc/meminfo", "MemTotal");
}

/* Clocks and temperature, which change. */
static double largest_of_files(const char *pattern)
{
    glob_t found;
    char text[64];
    double largest = 0;
    if (glob(pattern, 0, NULL, &found) != 0) return 0;
    for (size_t i = 0; i < found.gl_pathc; i++)
        if (first_line(found.gl_pathv[i], text, sizeof text) && atof(text) > largest) largest = atof(text);
    globfree(&found);
    return largest;
}

double system_cpu_mhz(void)
{
    double khz = largest_of_files("/sys/devices/system/cpu/cpu*/cpufreq/scaling_cur_freq");
    return khz > 0 ? khz / 1000 : largest_of("/proc/cpuinfo", "cpu MHz");
}

/* amdgpu: the line of pp_dpm_sclk with a star, "1: 1200Mhz *"; i915 and xe: a file with MHz */
double system_gpu_mhz(void)
{
    glob_t found;
    double largest = 0;
    if (glob("/sys/class/drm/card*/device/pp_dpm_sclk", 0, NULL, &found) == 0) {
        for (size_t i = 0; i < found.gl_pathc; i++) {
            char line[128];
            FILE *f = fopen(found.gl_pathv[i], "r");
            while (f && fgets(line, sizeof line, f)) {
                const char *colon = strchr(line, ':');
                if (colon && strchr(line, '*') && atof(colon + 1) > largest) largest = atof(colon + 1);
            }
            if (f) fclose(f);
        }
        globfree(&found);
    }
    if (largest == 0) largest = largest_of_files("/sys/class/drm/card*/gt_cur_freq_mhz");
    if (largest == 0) largest = largest_of_files("/sys/class/drm/card*/device/tile*/gt*/freq*/cur_freq");
    return largest;
}

/* The hottest sensor of processors and graphics cards. */
double system_celsius(char *name, size_t size)
{
    static const char *const known[] = {"coretemp", "k10temp", "zenpower", "amdgpu", "radeon", "nouveau", "i915", "xe", "cpu_thermal", "soc_thermal"};
    double hottest = 0;
    for (int i = 0; i < 64; i++) {
        char path[64], sensor[64];
        snprintf(path, sizeof path, "/sys/class/hwmon/hwmon%d/name", i);
        if (!first_line(path, sensor, sizeof sensor)) continue;
        bool is_known = false;
        for (size_t k = 0; k < VKM_COUNT(known); k++) is_known |= strcmp(sensor, known[k]) == 0;
        snprintf(path, sizeof path, "/sys/class/hwmon/hwmon%d/temp*_input", i);
        double t = is_known ? largest_of_files(path) / 1000 : 0;
        if (t <= hottest) continue;
        hottest = t;
        snprintf(name, size, "%.20s", sensor);
    }
    return hottest;
}
