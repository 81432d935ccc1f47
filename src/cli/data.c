/* put, get and del. */
#include <errno.h>
#include <stdio.h>
#include <unistd.h>

#include "base/base64.h"
#include "base/limits.h"
#include "cli/cli.h"

/* "/get?key=K&r=2", terminated. */
static void build_target(struct cli *cli, const char *path, struct buf *target)
{
    const struct {
        const char *name;
        const char *value;
    } parameters[] = {{"key", cli->arguments[0]},
                      {"r", cli->r},
                      {"w", cli->w},
                      {"ttl", cli->ttl},
                      {"timeout", cli->timeout}};
    buf_init(target, &cli->alloc);
    buf_append_text(target, path);
    char separator = '?';
    for (size_t i = 0; i < sizeof(parameters) / sizeof(parameters[0]); i++) {
        if (parameters[i].value == NULL)
            continue;
        buf_append(target, &separator, 1);
        buf_append_text(target, parameters[i].name);
        buf_append_text(target, "=");
        http_append_encoded(target, span_of_text(parameters[i].value));
        separator = '&';
    }
    buf_append(target, "", 1);
}

/* Reads standard input to its end. */
static enum cli_exit read_value(struct cli *cli, struct buf *value)
{
    static uint8_t chunk[64 << 10];
    if (isatty(STDIN_FILENO))
        fprintf(stderr, "rondo: reading the value from the terminal; end it with Ctrl-D\n");
    for (;;) {
        ssize_t got = read(STDIN_FILENO, chunk, sizeof(chunk));
        if (got == 0)
            return CLI_OK;
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return cli_fail(cli, CLI_USAGE, "BAD_REQUEST", "cannot read the value from standard input: %s",
                            strerror(errno));
        buf_append(value, chunk, (size_t)got);
        if (value->failed || value->size > VALUE_BYTES_MAX_HARD)
            return cli_fail(
                cli, CLI_USAGE, "TOO_LARGE",
                "the value on standard input is over %u MiB, more than any node takes; store it in "
                "parts under several keys",
                VALUE_BYTES_MAX_HARD >> 20);
    }
}

/* Sends a write and prints what it answered. */
static enum cli_exit send_write(struct cli *cli, const struct http_request *request)
{
    struct http_answer answer;
    enum cli_exit code = cli_request(cli, request, true, &answer);
    if (code == CLI_OK) {
        json_t *body = json_loadb((const char *)answer.body.data, answer.body.size, 0, NULL);
        const json_t *deleted = json_object_get(body, "deleted");
        if (!json_is_object(body))
            code = cli_fail(cli, CLI_UNKNOWN, "BAD_ANSWER",
                            "%s did not answer as Rondo does; is it the HTTP port of a Rondo node?",
                            cli->address);
        else if (cli->json)
            code = cli_print_json(body);
        else if (deleted == NULL)
            printf("stored, version %s\n", cli_json_text(body, "version"));
        else if (json_is_true(deleted))
            printf("deleted, version %s\n", cli_json_text(body, "version"));
        else
            printf("nothing to delete: the key had no value\n");
        json_decref(body);
    }
    http_answer_free(&answer);
    return code;
}

enum cli_exit cli_put(struct cli *cli)
{
    struct buf target;
    struct buf value;
    enum cli_exit code = CLI_OK;
    buf_init(&value, &cli->alloc);
    if (cli->argument_count < 2 || strcmp(cli->arguments[1], "-") == 0)
        code = read_value(cli, &value);
    else
        buf_append_text(&value, cli->arguments[1]);
    build_target(cli, "/put", &target);
    if (code == CLI_OK) {
        struct http_request request = {.method = "PUT",
                                       .address = cli->address,
                                       .target = (const char *)target.data,
                                       .has_body = true,
                                       .body = buf_span(&value)};
        code = send_write(cli, &request);
    }
    buf_free(&target);
    buf_free(&value);
    return code;
}

enum cli_exit cli_del(struct cli *cli)
{
    struct buf target;
    build_target(cli, "/delete", &target);
    struct http_request request = {
        .method = "DELETE", .address = cli->address, .target = (const char *)target.data};
    enum cli_exit code = send_write(cli, &request);
    buf_free(&target);
    return code;
}

static enum cli_exit print_value_json(struct cli *cli, const struct http_answer *answer)
{
    json_t *json = json_object();
    const char *bytes = answer->body.size > 0 ? (const char *)answer->body.data : "";
    json_t *text = json_stringn(bytes, answer->body.size);
    json_object_set_new(json, "key", json_stringn(cli->arguments[0], strlen(cli->arguments[0])));
    if (text != NULL) {
        json_object_set_new(json, "value", text);
    } else {
        struct buf encoded;
        buf_init(&encoded, &cli->alloc);
        base64_put(&encoded, buf_span(&answer->body));
        if (!encoded.failed)
            json_object_set_new(json, "value_base64", json_stringn((const char *)encoded.data, encoded.size));
        buf_free(&encoded);
    }
    json_object_set_new(json, "version",
                        json_stringn((const char *)answer->context.data, answer->context.size));
    enum cli_exit code = cli_print_json(json);
    json_decref(json);
    return code;
}

enum cli_exit cli_get(struct cli *cli)
{
    struct buf target;
    struct http_answer answer;
    build_target(cli, "/get", &target);
    struct http_request request = {
        .method = "GET", .address = cli->address, .target = (const char *)target.data};
    enum cli_exit code = cli_request(cli, &request, false, &answer);
    if (code == CLI_OK && cli->json)
        code = print_value_json(cli, &answer);
    else if (code == CLI_OK && !cli_write(buf_span(&answer.body)))
        code = CLI_NOT_APPLIED;
    else if (code == CLI_OK && isatty(STDOUT_FILENO))
        (void)cli_write(span_of_text("\n"));
    http_answer_free(&answer);
    buf_free(&target);
    return code;
}
