/* What every command needs to speak: errors, JSON, the terminal's abilities, and requests explained. */
#include <errno.h>
#include <langinfo.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "cli/cli.h"

enum cli_exit cli_fail(const struct cli *cli, enum cli_exit code, const char *error, const char *format, ...)
{
    char message[1024];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(message, sizeof(message), format, arguments);
    va_end(arguments);
    if (cli->json) {
        json_t *json = json_pack("{s:s, s:s}", "error", error, "message", message);
        (void)cli_print_json(json);
        json_decref(json);
    } else {
        fprintf(stderr, "rondo: %s\n", message);
    }
    return code;
}

bool cli_write(struct span bytes)
{
    if (fwrite(bytes.data, 1, bytes.size, stdout) == bytes.size && fflush(stdout) == 0)
        return true;
    fprintf(stderr, "rondo: cannot write the answer: %s\n", strerror(errno));
    return false;
}

enum cli_exit cli_print_json(const json_t *json)
{
    if (json == NULL || json_dumpf(json, stdout, JSON_INDENT(2) | JSON_ENCODE_ANY) != 0 ||
        fputc('\n', stdout) == EOF || fflush(stdout) != 0) {
        fprintf(stderr, "rondo: cannot write the answer as JSON\n");
        return CLI_NOT_APPLIED;
    }
    return CLI_OK;
}

bool cli_colours(void)
{
    const char *no_colour = getenv("NO_COLOR");
    return isatty(STDOUT_FILENO) && (no_colour == NULL || no_colour[0] == 0);
}

bool cli_utf8(void)
{
    return strcmp(nl_langinfo(CODESET), "UTF-8") == 0;
}

int cli_width(void)
{
    struct winsize size;
    const char *columns = getenv("COLUMNS");
    int width = 80;
    if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0)
        width = size.ws_col;
    else if (columns != NULL && atoi(columns) > 0)
        width = atoi(columns);
    return width < 40 ? 40 : width;
}

const char *cli_json_text(const json_t *object, const char *name)
{
    const char *text = json_string_value(json_object_get(object, name));
    return text == NULL ? "?" : text;
}

json_int_t cli_json_number(const json_t *object, const char *name)
{
    return json_integer_value(json_object_get(object, name));
}

const char *cli_number(json_int_t number, char text[CLI_NUMBER_BYTES_MAX])
{
    char digits[CLI_NUMBER_BYTES_MAX];
    int count = snprintf(digits, sizeof(digits), "%lld", (long long)number);
    int written = 0;
    for (int i = 0; i < count && written < CLI_NUMBER_BYTES_MAX - 2; i++) {
        text[written++] = digits[i];
        if (digits[i] != '-' && i + 1 < count && (count - i - 1) % 3 == 0)
            text[written++] = ',';
    }
    text[written] = 0;
    return text;
}

/* ---- requests ------------------------------------------------------------------------------------------- */

static enum cli_exit explain_fault(struct cli *cli, const struct http_answer *answer, bool write)
{
    switch (answer->fault) {
    case HTTP_FAULT_CONNECT:
        return cli_fail(cli, CLI_NO_NODE, "NO_NODE",
                        "cannot connect to %s (%s); start a node (./dev up, or rondod), or name another with "
                        "-h HOST:HTTPPORT",
                        cli->address, answer->fault_text);
    case HTTP_FAULT_MEMORY:
        return cli_fail(cli, CLI_NOT_APPLIED, "OVERLOADED", "the answer of %s does not fit into memory",
                        cli->address);
    default:
        if (write)
            return cli_fail(cli, CLI_UNKNOWN, "UNKNOWN",
                            "the connection to %s was lost before the answer (%s); the write may have taken "
                            "effect: read the key, or write it again",
                            cli->address, answer->fault_text);
        return cli_fail(
            cli, CLI_NO_NODE, "NO_NODE",
            "the connection to %s was lost before the answer (%s); try again, or name another node "
            "with -h HOST:HTTPPORT",
            cli->address, answer->fault_text);
    }
}

static enum cli_exit exit_of_status(long status, bool write)
{
    if (status == 400)
        return CLI_USAGE;
    if (status == 404)
        return CLI_NOT_FOUND;
    return status == 504 && write ? CLI_UNKNOWN : CLI_NOT_APPLIED;
}

/* Prints what a node answered instead of success. */
static enum cli_exit explain_status(struct cli *cli, const struct http_answer *answer, bool write)
{
    enum cli_exit code = exit_of_status(answer->status, write);
    json_t *body = json_loadb((const char *)answer->body.data, answer->body.size, 0, NULL);
    if (!json_is_object(body)) {
        json_decref(body);
        return cli_fail(cli, code == CLI_NOT_FOUND ? CLI_NOT_APPLIED : code, "BAD_ANSWER",
                        "%s answered %ld, but not as Rondo does; is it the HTTP port of a Rondo node?",
                        cli->address, answer->status);
    }
    if (cli->json) {
        (void)cli_print_json(body);
        json_decref(body);
        return code;
    }
    char counts[64] = "";
    if (json_is_integer(json_object_get(body, "needed")))
        snprintf(counts, sizeof(counts), " (needed %lld, got %lld)",
                 (long long)cli_json_number(body, "needed"), (long long)cli_json_number(body, "acks"));
    const char *lead = write ? "not applied" : "no answer";
    const char *advice = "";
    if (code == CLI_NOT_FOUND) {
        lead = "not found";
    } else if (code == CLI_USAGE) {
        lead = "bad request";
        advice = "; see rondo help";
    } else if (code == CLI_UNKNOWN) {
        lead = "outcome unknown";
        advice = "; read the key to see whether it took effect, or write it again";
    } else if (answer->status == 503 || answer->status == 504) {
        advice = "; try again";
    }
    if (code == CLI_NOT_FOUND)
        fprintf(stderr, "rondo: %s: %s%s\n", lead, cli_json_text(body, "message"), counts);
    else
        fprintf(stderr, "rondo: %s: %s: %s%s%s\n", lead, cli_json_text(body, "error"),
                cli_json_text(body, "message"), counts, advice);
    json_decref(body);
    return code;
}

enum cli_exit cli_request(struct cli *cli, const struct http_request *request, bool write,
                          struct http_answer *answer)
{
    http_send(&cli->alloc, request, answer);
    if (answer->fault != HTTP_FAULT_NONE)
        return explain_fault(cli, answer, write);
    if (answer->status < 200 || answer->status > 299)
        return explain_status(cli, answer, write);
    return CLI_OK;
}

enum cli_exit cli_request_json(struct cli *cli, const char *path, json_t **json)
{
    struct http_request request = {.method = "GET", .address = cli->address, .target = path};
    struct http_answer answer;
    enum cli_exit code = cli_request(cli, &request, false, &answer);
    *json = NULL;
    if (code == CLI_OK) {
        *json = json_loadb((const char *)answer.body.data, answer.body.size, 0, NULL);
        if (!json_is_object(*json)) {
            json_decref(*json);
            *json = NULL;
            code =
                cli_fail(cli, CLI_NOT_APPLIED, "BAD_ANSWER",
                         "%s did not answer with JSON; is it the HTTP port of a Rondo node?", cli->address);
        }
    }
    http_answer_free(&answer);
    return code;
}
