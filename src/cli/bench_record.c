/* Where and when something was measured. All of it is read from /proc and /sys; what is not there is "unknown". */
#include "bench.h"
#include <glob.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

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

/* ---------------------------------------------------------------- clocks and temperature, which change */

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

static double cpu_mhz(void)
{
    double khz = largest_of_files("/sys/devices/system/cpu/cpu*/cpufreq/scaling_cur_freq");
    return khz > 0 ? khz / 1000 : largest_of("/proc/cpuinfo", "cpu MHz");
}

/* amdgpu: the line of pp_dpm_sclk with a star, "1: 1200Mhz *"; i915 and xe: a file with MHz */
static double gpu_mhz(void)
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
static double celsius(char *name, size_t size)
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

static void keep(char *text, size_t size, const char *now)
{
    if (strcmp(text, "unknown") == 0 || !*text) snprintf(text, size, "%s", now);
    else if (strcmp(text, now) != 0 && !strstr(text, " to ") && strlen(text) + strlen(now) + 5 < size) strcat(strcat(text, " to "), now);
}

void bench_record_clocks(struct bench_record *r)
{
    char now[48] = "unknown", sensor[24] = "";
    double mhz = cpu_mhz();
    if (mhz > 0) snprintf(now, sizeof now, "%.0f MHz", mhz);
    keep(r->cpu_clock, sizeof r->cpu_clock, now);
    snprintf(now, sizeof now, "unknown");
    if ((mhz = gpu_mhz()) > 0) snprintf(now, sizeof now, "%.0f MHz", mhz);
    keep(r->gpu_clock, sizeof r->gpu_clock, now);
    snprintf(now, sizeof now, "unknown");
    double t = celsius(sensor, sizeof sensor);
    if (t > 0) snprintf(now, sizeof now, "%.0f C (%s)", t, sensor);
    keep(r->temperature, sizeof r->temperature, now);
}

void bench_record_fill(struct bench_record *r, int argc, char **argv)
{
    struct utsname u;
    if (uname(&u) != 0) u = (struct utsname){.sysname = "unknown", .machine = "unknown"};
    *r = (struct bench_record){0};
    snprintf(r->version, sizeof r->version, "%s", vkm_version());
    snprintf(r->commit, sizeof r->commit, "%s", VKMOE_COMMIT);
    time_t now = time(NULL);
    struct tm *utc = gmtime(&now);
    if (!utc || !strftime(r->date, sizeof r->date, "%Y-%m-%dT%H:%M:%SZ", utc)) snprintf(r->date, sizeof r->date, "unknown");
    os_name(r->os, sizeof r->os, &u);
    snprintf(r->machine, sizeof r->machine, "%.63s", u.machine);
    cpu_name(r->cpu, sizeof r->cpu);
    snprintf(r->cpus, sizeof r->cpus, "%ld", sysconf(_SC_NPROCESSORS_ONLN));
    double kib = largest_of("/proc/meminfo", "MemTotal");
    if (kib > 0) snprintf(r->memory, sizeof r->memory, "%.2f GiB", kib / 0x1p20);
    else snprintf(r->memory, sizeof r->memory, "unknown");
    size_t used = 0;
    for (int i = 0; i < argc && used < sizeof r->command; i++) used += (size_t)snprintf(r->command + used, sizeof r->command - used, "%s%s", i ? " " : "", argv[i]);
    for (char *c = r->command; *c; c++)                    /* one line, whatever the arguments hold */
        if ((unsigned char)*c < 0x20 || *c == 0x7f) *c = ' ';
    bench_record_clocks(r);
}
