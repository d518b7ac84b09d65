/* Reading JSON (RFC 8259) that anybody may have written. Refused are: more than 16 levels, 1024 members or 4 M values, doubled keys, numbers beyond a double,
 * NUL characters, invalid UTF-8, anything behind the value. */
#ifndef VKM_CLI_JSON_READ_H
#define VKM_CLI_JSON_READ_H

#include "host/base.h"

enum json_type { JSON_NULL, JSON_BOOL, JSON_NUMBER, JSON_STRING, JSON_ARRAY, JSON_OBJECT };
struct json_value {
    enum json_type type;
    const char *key;               /* in an object */
    const char *text;              /* of a string, UTF-8 */
    double number;                 /* of a number; 0 or 1 of a bool */
    uint32_t first, count, next;   /* contents of a container; what follows in the same container, 0: nothing */
};
struct json_doc { struct json_value *values; uint32_t n, capacity; char *text; };

/* values[0] is the outermost one. The text is copied. VKM_ERR_FORMAT says line and column; nothing is to be freed then. */
vkm_result json_parse(const char *text, size_t n, struct json_doc *doc, vkm_error *err);
void json_free(struct json_doc *doc);
const struct json_value *json_member(const struct json_doc *doc, const struct json_value *object, const char *key);   /* NULL: none, or no object */
const struct json_value *json_first(const struct json_doc *doc, const struct json_value *container);                  /* NULL: empty */
const struct json_value *json_next(const struct json_doc *doc, const struct json_value *value);                       /* NULL: the last */

#endif
