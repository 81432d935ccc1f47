/* Named bounds. Every queue, table, batch and loop has its limit here, with the reason for its size. */
#ifndef RONDO_BASE_LIMITS_H
#define RONDO_BASE_LIMITS_H

/* The ring: Redis Cluster's slot count, so that existing cluster clients compute our positions. */
#define SLOTS_COUNT 16384

/* Clockwise from slot s is s + 16: 16 interleaved rings of 1024 positions each. */
#define SLOT_STRIDE 16

/* Most replicas of one key. Seven survive three failures with majority quorums; nobody asks for more. */
#define REPLICAS_MAX 7

/* Most nodes of one cluster; claims are tested to 300. */
#define NODES_MAX 512

/* Most shards of one node: one per core of the largest machines in use. */
#define SHARDS_MAX 64

/* Default limits of a key and a value; both can be configured up to the hard limits below. */
#define KEY_BYTES_MAX_DEFAULT (16u << 10)
#define VALUE_BYTES_MAX_DEFAULT (16u << 20)

/* A key's size travels as 16 bits. A value must leave room in a frame of FRAME_BYTES_MAX. */
#define KEY_BYTES_MAX_HARD 65535u
#define VALUE_BYTES_MAX_HARD (64u << 20)

/* A record is its value and at most this much around it (stamps, expiries, flags). */
#define RECORD_OVERHEAD_BYTES_MAX 96u

/* A peer frame holds one key and one record and a header. */
#define FRAME_HEADER_BYTES_MAX 256u
#define FRAME_BYTES_MAX \
    (VALUE_BYTES_MAX_HARD + KEY_BYTES_MAX_HARD + RECORD_OVERHEAD_BYTES_MAX + FRAME_HEADER_BYTES_MAX)

/* RESP: arguments of one command (Redis allows 2^20 of them) and the length of an inline command line. */
#define COMMAND_ARGUMENTS_MAX (1u << 20)
#define RESP_INLINE_BYTES_MAX (64u << 10)

/* HTTP: request target and all headers together. A key may be percent-encoded threefold. */
#define HTTP_TARGET_BYTES_MAX (3u * KEY_BYTES_MAX_HARD + 1024u)
#define HTTP_HEADERS_BYTES_MAX (64u << 10)

/* Requests that one shard coordinates at once; a request is about 1 KiB, so this is 16 MiB at most. */
#define REQUESTS_IN_FLIGHT_MAX (16u << 10)

/* Writes that were answered and still wait for their slowest replica; past it the slot is compared later instead. */
#define REQUESTS_LINGERING_MAX (8u << 10)

/* Commands of one client that are not answered yet. Past it the client's input waits in its socket. */
#define CLIENT_COMMANDS_MAX 1024u

/* Answers of one client gathered in a turn before its input waits; an answer itself may be larger. With little memory
 * it is this part of what a shard has for everything but rows, so that a few clients cannot fill it in one turn. */
#define CLIENT_OUTPUT_BYTES_MAX (4u << 20)
#define CLIENT_OUTPUT_DIVISOR 32u

/* When memory is short, the answers of all clients gathered in a turn take about this part of it; buffers double. */
#define CLIENT_OUTPUTS_DIVISOR 16u

/* Of what a shard has for everything but rows: past the first half of it clients have one command in flight each, the
 * rest waits in their sockets; past three quarters commands on keys are answered OVERLOADED before anything is done for
 * them. The last quarter is for answers, for requests under way and for other nodes. */
#define MEMORY_BUSY_DIVISOR 2u
#define MEMORY_SHORT_DIVISOR 4u

/* Bytes that one shard appended to the log and that are not durable yet; past it writes get OVERLOADED. Twice the
 * largest frame, so that even the largest value fits while another is being synced. */
#define LOG_UNSYNCED_BYTES_MAX (2u * FRAME_BYTES_MAX - 64u)

/* With little memory: this part of the shard's. The log thread's two queues double as they grow, so they hold up to
 * four times as much; that is a quarter of the memory at the very worst, on a disk that has stopped. */
#define LOG_UNSYNCED_DIVISOR 16u

/* Answers that wait for the log, and operations that wait for cold reads, of one shard. */
#define DURABLE_WAITERS_MAX (256u << 10)
#define COLD_WAITERS_MAX (64u << 10)

/* Frames gathered for one peer in a turn; past it messages to it are dropped, as a broken connection would. */
#define PEER_OUTPUT_BYTES_MAX (FRAME_BYTES_MAX + (64u << 20))

/* Records up to this size are sent whole where a version would do: fetching them later costs more. */
#define SMALL_RECORD_BYTES_MAX 1024u

/* A node's name, and "host:port". */
#define NAME_BYTES_MAX 64

/* The timeline of a traced request: enough for a write to REPLICAS_MAX replicas, sent twice and answered; its text fits
 * where clients bound a header's size. What comes after is left out, and the timeline says so. */
#define TRACE_EVENTS_MAX 64u
#define TRACE_BYTES_MAX 4096u
#define ADDRESS_BYTES_MAX 272

/* Arguments of a command that goes to all shards of a node (CLIENT KILL's filters, CLIENT LIST's ids). Each shard gets
 * a copy of them. */
#define QUESTION_ARGUMENTS_MAX 1024u
#define QUESTION_BYTES_MAX (64u << 10)

/* An entry of the slow log shows as much of a command as Redis does. */
#define SLOWLOG_ARGUMENTS_MAX 32u
#define SLOWLOG_ARGUMENT_BYTES_MAX 128u
#define SLOWLOG_BYTES_MAX (4u + SLOWLOG_ARGUMENTS_MAX * (4u + SLOWLOG_ARGUMENT_BYTES_MAX))

/* Entries of the slow log; with little memory the oldest go earlier: a shard's take at most this part of what it has
 * for everything but rows. */
#define SLOWLOG_ENTRIES_MAX (64u << 10)
#define SLOWLOG_DIVISOR 32u

/* Times that are kept of each event of the latency monitor, as in Redis. */
#define LATENCY_SAMPLES_MAX 160u

/* "host:port" of a connection; the longest is that of an IPv6 address with a scope. */
#define CLIENT_ADDRESS_BYTES_MAX 72u

_Static_assert(SLOTS_COUNT % SLOT_STRIDE == 0, "each interleaved ring has the same number of positions");
_Static_assert(VALUE_BYTES_MAX_DEFAULT <= VALUE_BYTES_MAX_HARD, "the default value limit is allowed");
_Static_assert(KEY_BYTES_MAX_DEFAULT <= KEY_BYTES_MAX_HARD, "the default key limit is allowed");

#endif
