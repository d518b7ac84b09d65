/* A report as one page: plots as inline SVG, nothing loaded from anywhere. Plots are in bench_plot.c. */
#include "bench_plot.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

void bench_html_text(FILE *out, const char *text)
{
    for (; *text; text++) {
        const char *entity = *text == '&' ? "&amp;" : *text == '<' ? "&lt;" : *text == '>' ? "&gt;" : *text == '"' ? "&quot;" : *text == '\'' ? "&#39;" : NULL;
        if (entity) fputs(entity, out);
        else putc((unsigned char)*text < ' ' ? ' ' : *text, out);
    }
}

static const char style[] =
    ":root{color-scheme:light dark;--bg:#fff;--fg:#1b1f24;--dim:#5b6470;--line:#d5dae1;--panel:#f5f6f8;--bar:#fff;--good:#2f8f4e;--bad:#c8443c;"
    "--c0:#4778b0;--c1:#e8822a;--c2:#4c9a48;--c3:#d64f52;--c4:#8a63b5;--c5:#3ba5a5;--c6:#d17fa9;--c7:#a97a4d;--c8:#b8a12c;--c9:#6b8fe0;--c10:#7b8b2f;--c11:#9a9a9a}\n"
    "@media(prefers-color-scheme:dark){:root{--bg:#15181c;--fg:#e4e7eb;--dim:#9aa4b0;--line:#343a42;--panel:#1d2126;--bar:#101214;--good:#56b877;--bad:#e8736b;"
    "--c0:#6fa0d8;--c1:#f59b4c;--c2:#6cbd67;--c3:#ec7375;--c4:#ab88d6;--c5:#5fc4c4;--c6:#e29dc0;--c7:#c59a70;--c8:#d6c04e;--c9:#8fb0f5;--c10:#a0b14f;--c11:#8a8f96}}\n"
    "body{margin:0 auto;max-width:1080px;padding:24px 20px 60px;background:var(--bg);color:var(--fg);font:15px/1.5 system-ui,sans-serif}\n"
    "h1{font-size:26px;line-height:1.25;margin:0 0 4px}h2{font-size:19px;margin:36px 0 8px}h3{font-size:15px;margin:20px 0 6px}p{margin:4px 0 10px}.dim{color:var(--dim)}\n"
    ".warn{border:1px solid var(--bad);border-radius:6px;padding:8px 12px;color:var(--bad);font-weight:600}.wide{overflow-x:auto}\n"
    "table{border-collapse:collapse;font-size:13px;font-variant-numeric:tabular-nums;margin:6px 0 14px}th,td{padding:3px 10px;text-align:right;white-space:nowrap;border-bottom:1px solid var(--line)}\n"
    "thead th{color:var(--dim);font-weight:600;border-bottom:2px solid var(--line)}th.text,td.text{text-align:left}.facts td{white-space:normal;overflow-wrap:anywhere}.facts th{color:var(--dim);font-weight:500;vertical-align:top}\n"
    "tbody tr:hover{background:var(--panel)}td.wrong{color:var(--bad)}td svg{vertical-align:middle}\n"
    "svg{max-width:100%;height:auto;font:12px system-ui,sans-serif}svg text{fill:var(--fg)}svg text.dim{fill:var(--dim)}.grid{stroke:var(--line);stroke-width:1}.axis{stroke:var(--dim);stroke-width:1}\n"
    ".ceiling{stroke:var(--fg);stroke-width:1.6;fill:none}.ceiling.other{stroke-dasharray:5 4;stroke-width:1.2}.curve{fill:none;stroke-width:2}.halo{paint-order:stroke;stroke:var(--bg);stroke-width:4px;stroke-linejoin:round}\n"
    ".good{fill:var(--good)}.bad{fill:var(--bad)}.even{fill:var(--c11)}.legend{display:flex;flex-wrap:wrap;gap:3px 16px;margin:6px 0 12px;padding:0;list-style:none;font-size:13px}\n"
    ".legend i{display:inline-block;width:11px;height:11px;border-radius:2px;margin-right:6px}details{margin:6px 0}summary{cursor:pointer;color:var(--dim)}\n";

void bench_html_begin(FILE *out, const char *title)
{
    fprintf(out, "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n<title>");
    bench_html_text(out, title);
    fprintf(out, "</title>\n<style>\n%s</style>\n</head>\n<body>\n<h1>", style);
    bench_html_text(out, title);
    fputs("</h1>\n", out);
}

void bench_html_end(FILE *out) { fputs("</body>\n</html>\n", out); }

static void fact(FILE *out, const char *name, const char *text)
{
    fputs("<tr><th class=\"text\">", out);
    bench_html_text(out, name);
    fputs("</th><td class=\"text\">", out);
    bench_html_text(out, text);
    fputs("</td></tr>\n", out);
}

static void facts(FILE *out, const struct bench_report *report, const struct bench_record *r)
{
    char text[640], tier[64];
    fputs("<section><h2>Device and machine</h2>\n<table class=\"facts\"><tbody>\n", out);
    snprintf(text, sizeof text, "%s (%s), Vulkan %u.%u.%u", report->device.driver, report->device.type ? report->device.type : "unknown", report->device.api_major, report->device.api_minor, report->device.api_patch);
    fact(out, "Driver", text);
    snprintf(text, sizeof text, "%s tier: %s", bench_tier(&report->caps, tier), report->device.caps);
    fact(out, "In use", text);
    snprintf(text, sizeof text, "%s, %s processors, %s; %s, %s", r->cpu, r->cpus, r->memory, r->os, r->machine);
    fact(out, "Machine", text);
    snprintf(text, sizeof text, "processor %s, graphics %s, temperature %s", r->cpu_clock, r->gpu_clock, r->temperature);
    fact(out, "Clocks", text);
    snprintf(text, sizeof text, "%s, commit %s", r->version, r->commit);
    fact(out, "vkmoe", text);
    fact(out, "Command", r->command);
    for (uint32_t i = 0; i < report->n_notes; i++) fact(out, report->notes[i].key, report->notes[i].text);
    fputs("</tbody></table></section>\n", out);
}

static void table(FILE *out, const struct bench_table *t)
{
    enum { FOLDED = 60 };
    char text[160];
    bool folded = t->n_rows > FOLDED;
    if (folded) fprintf(out, "<details><summary>%u rows</summary>\n", t->n_rows);
    fputs("<div class=\"wide\"><table><thead><tr>", out);
    for (uint32_t i = 0; i < t->n_parts; i++) {
        fputs("<th class=\"text\">", out);
        bench_html_text(out, t->parts[i]);
        fputs("</th>", out);
    }
    for (uint32_t c = 0; c < t->n_columns; c++) {
        fputs("<th>", out);
        bench_html_text(out, t->columns[c].name);
        if (t->columns[c].unit[0]) fputs("<br/>", out);
        bench_html_text(out, t->columns[c].unit);
        fputs("</th>", out);
    }
    fprintf(out, "%s</tr></thead><tbody>\n", t->measured ? "<th>spread</th>" : "");
    for (uint32_t r = 0; r < t->n_rows; r++) {
        fputs("<tr>", out);
        for (uint32_t i = 0; i < t->n_parts; i++) {
            bench_part(t->rows[r], t->parts[i], text, sizeof text);
            fputs("<td class=\"text\">", out);
            bench_html_text(out, text);
            fputs("</td>", out);
        }
        for (uint32_t c = 0; c < t->n_columns; c++) {
            bench_cell(&t->columns[c], t->rows[r], text, sizeof text);
            fputs(strncmp(text, "invalid", 7) == 0 ? "<td class=\"wrong\">" : "<td>", out);
            bench_html_text(out, text);
            fputs("</td>", out);
        }
        if (t->measured) {
            bench_spread(t->rows[r], text, sizeof text);
            fputs("<td>", out);
            bench_html_text(out, text);
            fputs("</td>", out);
        }
        fputs("</tr>\n", out);
    }
    fprintf(out, "</tbody></table></div>\n%s", folded ? "</details>\n" : "");
}

/* What a section shows before its tables. */
static void plots(FILE *out, const struct bench_report *report, const char *section, const struct bench_palette *palette)
{
    if (strcmp(section, "roofline") == 0) bench_plot_roofline(out, report, palette);
    else if (strcmp(section, "step") == 0) {
        bool has_section = false;
        for (uint32_t i = 0; i < report->n_rows; i++) has_section |= strcmp(report->rows[i].section, "roofline") == 0;
        if (!has_section) bench_plot_roofline(out, report, palette);
        bench_plot_breakdown(out, report, palette);
    }
    else bench_plot_curves(out, report, section);
}

void bench_write_html(FILE *out, const struct bench_report *report, const struct bench_record *record)
{
    uint32_t n;
    struct bench_palette palette;
    char title[320];
    struct bench_table *tables = bench_tables(report, &n);
    snprintf(title, sizeof title, "vkmoe bench: %s", report->device.name);
    bench_html_begin(out, title);
    fputs("<p class=\"dim\">", out);
    bench_html_text(out, record->date);
    fputs(". Figures are medians; spread is half of p10 to p90; ~ the 95 % interval of the median did not get within 2 %; ! drift of more than 5 % over the runs.</p>\n", out);
    if (report->incomplete) fputs("<p class=\"warn\">Incomplete: the run was stopped, and what is missing was not measured.</p>\n", out);
    if (!tables) fputs("<p class=\"warn\">Out of memory: no tables.</p>\n", out);
    bench_palette_make(report, &palette);
    for (uint32_t i = 0; tables && i < n; i++) {
        bool first = i == 0 || strcmp(tables[i].section, tables[i - 1].section) != 0, last = i + 1 == n || strcmp(tables[i].section, tables[i + 1].section) != 0;
        if (first) {
            fputs("<section><h2>", out);
            bench_html_text(out, bench_title(tables[i].section));
            fputs("</h2>\n", out);
            plots(out, report, tables[i].section, &palette);
        }
        table(out, &tables[i]);
        if (last) fputs("</section>\n", out);
    }
    bench_tables_free(tables, n);
    facts(out, report, record);
    bench_html_end(out);
}
