/* Texts of the status codes. */
#include "base/status.h"

const char *status_name(enum status status)
{
    switch (status) {
#define STATUS_NAME(name, number, wire, text) \
    case STATUS_##name:                       \
        return wire;
        STATUS_MAP(STATUS_NAME)
#undef STATUS_NAME
    }
    return "INVALID";
}

const char *status_text(enum status status)
{
    switch (status) {
#define STATUS_TEXT(name, number, wire, text) \
    case STATUS_##name:                       \
        return text;
        STATUS_MAP(STATUS_TEXT)
#undef STATUS_TEXT
    }
    return "not a status code";
}
