/* Where and when something was measured; what the system does not tell is "unknown". */
#include "bench.h"
#include "system.h"
#include <string.h>
#include <time.h>

static void keep(char *text, size_t size, const char *now)
{
    if (strcmp(text, "unknown") == 0 || !*text) snprintf(text, size, "%s", now);
    else if (strcmp(text, now) != 0 && !strstr(text, " to ") && strlen(text) + strlen(now) + 5 < size) strcat(strcat(text, " to "), now);
}

void bench_record_clocks(struct bench_record *r)
{
    char now[48] = "unknown", sensor[24] = "";
    double mhz = system_cpu_mhz();
    if (mhz > 0) snprintf(now, sizeof now, "%.0f MHz", mhz);
    keep(r->cpu_clock, sizeof r->cpu_clock, now);
    snprintf(now, sizeof now, "unknown");
    if ((mhz = system_gpu_mhz()) > 0) snprintf(now, sizeof now, "%.0f MHz", mhz);
    keep(r->gpu_clock, sizeof r->gpu_clock, now);
    snprintf(now, sizeof now, "unknown");
    double t = system_celsius(sensor, sizeof sensor);
    if (t > 0) snprintf(now, sizeof now, "%.0f C (%s)", t, sensor);
    keep(r->temperature, sizeof r->temperature, now);
}

void bench_record_fill(struct bench_record *r, int argc, char **argv)
{
    struct system_facts facts;
    system_facts(&facts);
    *r = (struct bench_record){0};
    snprintf(r->version, sizeof r->version, "%s", vkm_version());
    snprintf(r->commit, sizeof r->commit, "%s", VKMOE_COMMIT);
    time_t now = time(NULL);
    struct tm *utc = gmtime(&now);
    if (!utc || !strftime(r->date, sizeof r->date, "%Y-%m-%dT%H:%M:%SZ", utc)) snprintf(r->date, sizeof r->date, "unknown");
    snprintf(r->os, sizeof r->os, "%s", facts.os);
    snprintf(r->machine, sizeof r->machine, "%s", facts.machine);
    snprintf(r->cpu, sizeof r->cpu, "%s", facts.cpu);
    snprintf(r->cpus, sizeof r->cpus, "%u", facts.n_cpus);
    if (facts.memory_bytes > 0) snprintf(r->memory, sizeof r->memory, "%.2f GiB", facts.memory_bytes / 0x1p30);
    else snprintf(r->memory, sizeof r->memory, "unknown");
    size_t used = 0;
    for (int i = 0; i < argc && used < sizeof r->command; i++) used += (size_t)snprintf(r->command + used, sizeof r->command - used, "%s%s", i ? " " : "", argv[i]);
    for (char *c = r->command; *c; c++)                    /* one line, whatever the arguments hold */
        if ((unsigned char)*c < 0x20 || *c == 0x7f) *c = ' ';
    bench_record_clocks(r);
}
