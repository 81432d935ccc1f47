/* Questions to the whole node: commands that every shard carries out for itself, and whose answers become one.
 *
 * The shard that has the client sends the command's arguments to all (FRAME_QUESTION), itself included, and each
 * answers with bytes that the command's own file knows (FRAME_ANSWER). When all have answered, that file makes the
 * reply of them.
 *
 * FRAME_QUESTION: u8 command | u8 subcommand | u64 the client that asks | arguments (long each).
 * FRAME_ANSWER: u8 whether the shard had room to answer | the answer. */
#include <assert.h>

#include "shard/admin.h"

/* ---- asking --------------------------------------------------------------------------------------------- */

bool gather_wanted(const struct command *command)
{
    switch (command->id) {
    case COMMAND_CLIENT:
        return command->subcommand == SUBCOMMAND_CLIENT_LIST || command->subcommand == SUBCOMMAND_CLIENT_KILL;
    case COMMAND_CONFIG:
        return command->subcommand == SUBCOMMAND_CONFIG_SET ||
               command->subcommand == SUBCOMMAND_CONFIG_RESETSTAT;
    case COMMAND_SLOWLOG:
        return command->subcommand != SUBCOMMAND_SLOWLOG_HELP;
    case COMMAND_LATENCY:
        return command->subcommand != SUBCOMMAND_LATENCY_HELP;
    default:
        return command->id == COMMAND_INFO;
    }
}

static void note_answer(struct shard *shard, uint64_t ticket, struct span body)
{
    struct pending *pending = map_get(&shard->pendings, ticket >> TICKET_PART_BITS);
    assert(pending != NULL && pending->gathering != NULL && body.size > 0);
    struct buf *answers = &pending->gathering->answers;
    if (body.data[0] != 0)
        buf_put_long(answers, span_of(body.data + 1, body.size - 1));
    if (body.data[0] == 0 || answers->failed)
        pending_overloaded(pending);
    pending_part_over(shard, pending);
}

static void answer_question(struct shard *shard, struct span question, struct buf *body);

void gather_ask(struct shard *shard, const struct client *client, struct pending *pending,
                const struct command *command)
{
    size_t bytes = 0;
    for (uint32_t i = 0; i < command->argc; i++)
        bytes += command->argv[i].size;
    if (bytes > QUESTION_BYTES_MAX || command->argc > QUESTION_ARGUMENTS_MAX) {
        pending_overloaded(pending);
        return;
    }
    struct gathering *gathering = alloc_get(&shard->alloc, sizeof *gathering);
    if (gathering == NULL) {
        pending_overloaded(pending);
        return;
    }
    pending->gathering = gathering;
    buf_init(&gathering->question, &shard->alloc);
    buf_init(&gathering->answers, &shard->alloc);
    struct buf *question = &gathering->question;
    buf_put_u8(question, (uint8_t)command->id);
    buf_put_u8(question, (uint8_t)command->subcommand);
    buf_put_u64(question, client->id);
    for (uint32_t i = 0; i < command->argc; i++)
        buf_put_long(question, command->argv[i]);
    if (question->failed) {
        pending_overloaded(pending);
        return;
    }
    uint64_t ticket = pending->id << TICKET_PART_BITS;
    pending->parts_left += shard->options.shards;
    for (uint16_t i = 0; i < shard->options.shards; i++) {
        if (i != shard->options.shard)
            frame_put_raw(&shard->locals[i], FRAME_QUESTION, frame_head_of(shard, (uint8_t)i, ticket),
                          buf_span(question));
    }
    struct buf body;
    buf_init(&body, &shard->local_alloc);
    answer_question(shard, buf_span(question), &body);
    note_answer(shard, ticket, buf_span(&body));
    buf_free(&body);
}

void gathering_free(struct shard *shard, struct gathering *gathering)
{
    if (gathering == NULL)
        return;
    buf_free(&gathering->question);
    buf_free(&gathering->answers);
    alloc_put(&shard->alloc, gathering, sizeof *gathering);
}

/* ---- answering ------------------------------------------------------------------------------------------ */

/* The command of a question; its arguments are views of it. */
static void question_read(struct span question, struct span argv[QUESTION_ARGUMENTS_MAX],
                          struct command *command, uint64_t *asker)
{
    struct reader reader = reader_of(question);
    *command = (struct command){.argv = argv};
    command->id = (enum command_id)reader_u8(&reader);
    command->subcommand = (enum subcommand_id)reader_u8(&reader);
    *asker = reader_u64(&reader);
    while (reader_left(&reader) > 0) {
        assert(command->argc < QUESTION_ARGUMENTS_MAX);
        argv[command->argc++] = reader_long(&reader);
    }
    assert(!reader.failed); /* a sibling wrote it */
}

static void answer_question(struct shard *shard, struct span question, struct buf *body)
{
    struct span argv[QUESTION_ARGUMENTS_MAX];
    struct command command;
    uint64_t asker;
    question_read(question, argv, &command, &asker);
    buf_put_u8(body, 1);
    switch (command.id) {
    case COMMAND_INFO:
        watch_figures_put(shard, body);
        break;
    case COMMAND_CLIENT:
        clients_answer(shard, &command, asker, body);
        break;
    case COMMAND_CONFIG:
        settings_answer(shard, &command);
        break;
    case COMMAND_SLOWLOG:
        slowlog_answer(shard, &command, body);
        break;
    case COMMAND_LATENCY:
        if (command.subcommand == SUBCOMMAND_LATENCY_HISTOGRAM)
            watch_figures_put(shard, body);
        else
            latency_answer(shard, &command, body);
        break;
    default:
        assert(0 && "a command that gather_wanted() knows");
    }
}

void gather_asked(struct shard *shard, const struct frame *frame)
{
    struct buf body;
    buf_init(&body, &shard->local_alloc);
    answer_question(shard, frame->body, &body);
    /* A frame has a bound of its own. */
    if (body.failed || body.size > FRAME_BYTES_MAX - FRAME_HEADER_BYTES) {
        buf_clear(&body);
        buf_put_u8(&body, 0);
    }
    frame_put_raw(&shard->locals[frame->from_shard], FRAME_ANSWER,
                  frame_head_of(shard, frame->from_shard, frame->request), buf_span(&body));
    buf_free(&body);
}

void gather_answered(struct shard *shard, const struct frame *frame)
{
    note_answer(shard, frame->request, frame->body);
}

/* ---- the reply ------------------------------------------------------------------------------------------ */

bool gather_figures(struct shard *shard, const struct pending *pending, struct watch_figures **sum)
{
    *sum = alloc_get_zeroed(&shard->alloc, sizeof **sum);
    if (*sum == NULL)
        return false;
    struct reader answers = reader_of(buf_span(&pending->gathering->answers));
    while (reader_left(&answers) > 0) {
        struct reader answer = reader_of(reader_long(&answers));
        watch_figures_add(&answer, *sum);
    }
    return true;
}

static void reply_histogram(struct shard *shard, struct pending *pending, const struct command *command)
{
    struct watch_figures *sum;
    if (!gather_figures(shard, pending, &sum)) {
        pending->reply.failed = true;
        return;
    }
    latency_histogram(sum, command, pending->proto, &pending->reply);
    alloc_put(&shard->alloc, sum, sizeof *sum);
}

void gather_reply(struct shard *shard, struct pending *pending)
{
    struct span argv[QUESTION_ARGUMENTS_MAX];
    struct command command;
    uint64_t asker;
    question_read(buf_span(&pending->gathering->question), argv, &command, &asker);
    switch (command.id) {
    case COMMAND_CLIENT:
        clients_reply(pending, &command);
        return;
    case COMMAND_SLOWLOG:
        slowlog_reply(shard, pending, &command);
        return;
    case COMMAND_LATENCY:
        if (command.subcommand == SUBCOMMAND_LATENCY_HISTOGRAM)
            reply_histogram(shard, pending, &command);
        else
            latency_reply(shard, pending, &command);
        return;
    default:
        assert(command.id == COMMAND_CONFIG);
        resp_reply_ok(&pending->reply);
        return;
    }
}
