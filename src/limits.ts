/** Every number that is enforced, unit in the name, with its reason. What an operator may set is in config/. */

/** Contract, section 1: request rules. */
export const ARGV_MAX_ELEMENTS = 256;
/** Linux MAX_ARG_STRLEN is 131,072 with the closing NUL. */
export const ARGV_MAX_ELEMENT_BYTES = 131_071;
export const ARGV_MAX_TOTAL_BYTES = 128 * 1024;
export const STDIN_MAX_BYTES = 1024 * 1024;
export const BODY_MAX_BYTES = 2 * 1024 * 1024;
/** After 413 the rest of the body is read for this long at most, so that the caller can read the answer. */
export const BODY_DRAIN_MAX_BYTES = 8 * 1024 * 1024;
export const BODY_DRAIN_MAX_MS = 2_000;
export const RUN_TIMEOUT_DEFAULT_S = 30;
export const CONNECT_TIMEOUT_DEFAULT_S = 20;
export const CONNECT_TIMEOUT_MAX_S = 60;
export const OUTPUT_CAP_DEFAULT_BYTES = 1024 * 1024;

/** Past the cap output is still read and counted, at this rate, so that a program cannot burn our CPU for nothing. */
export const DISCARD_BYTES_PER_S = 16 * 1024 * 1024;
/** Blank line while a program is silent; proxies commonly cut at 60 s. */
export const HEARTBEAT_MS = 15_000;
/** A program has exited but a background child holds its stdout open: the exec ends after this. */
export const LINGER_MS = 2_000;
/** An exec ended while it is being started: how long its host's answer is waited for, to know what to end. */
export const ANSWER_GRACE_MS = 2_000;
/** Between TERM and KILL. */
export const KILL_GRACE_MS = 2_000;
/** The whole kill conversation with a host, from opening the control channel to the last look. */
export const KILL_BUDGET_MS = 10_000;

/** After a lost connection: how long the row waits to learn whether the program could be ended, */
export const REAP_ROW_MAX_MS = 15_000;
/** and how long the gateway goes on trying; the row then says `unknown`. */
export const REAP_MAX_MS = 10 * 60_000;

/** A replica says so often that it is here, */
export const PRESENCE_BEAT_MS = 3_000;
/** and is over when it was not heard for this long: six beats, so that a slow database ends nobody. */
export const PRESENCE_MAX_MS = 20_000;
/**
 * So often each replica looks for what others have left. Rows are `interrupted` within 60 s of a death: PRESENCE_MAX_MS,
 * this, and at most REAP_ROW_MAX_MS to end the program, make 40.
 */
export const RECONCILE_EVERY_MS = 5_000;
/** Claimed in one statement; what is left over is claimed in the next. */
export const RECONCILE_ROWS_MAX = 256;

/** Contract: TERM is sent so soon after a right was withdrawn, also when every notice is lost. */
export const WITHDRAWAL_MAX_MS = 2_000;
/** So often the rights of what runs are read again, so that one statement and one kill script have the second second. */
export const RIGHTS_POLL_MS = 900;
/** An exec that another replica runs is cancelled by asking it; asked again, for its ear may have been closed, */
export const CANCEL_ASK_EVERY_MS = 1_000;
/** its row is looked at this often, */
export const CANCEL_LOOK_EVERY_MS = 100;
/** and the answer waits as long as a kill may take, and the way there. */
export const CANCEL_WAIT_MAX_MS = KILL_BUDGET_MS + 2_000;
/** So often a replica asks whether an admin has replaced host keys; a notice makes it ask at once. */
export const HOST_KEYS_POLL_MS = 5_000;
/** The connection on which a replica hears of withdrawals is tried again after these pauses, */
export const LISTEN_PAUSE_FIRST_MS = 250;
export const LISTEN_PAUSE_MAX_MS = 5_000;
/** and tried out this often: a line that died without a word looks like silence. */
export const LISTEN_CHECK_MS = 10_000;

/** Idempotency-Key. Contract, section 1. */
export const IDEMPOTENCY_LIFE_S = 24 * 3600;
export const IDEMPOTENCY_KEY_MAX_CHARS = 255;
/** The terminal frame of a request with a key waits for the database to have it, but not longer than this. */
export const ANSWER_KEPT_MAX_MS = 5_000;

/** Payload of one output frame. From 128 KiB on, base64 of a Buffer falls to a tenth of its speed. */
export const FRAME_MAX_BYTES = 48 * 1024;
/** The first output leaves at once; later, smaller pieces may wait this long for more. Contract: at most 10 ms. */
export const JOIN_MAX_MS = 5;
/** What is at least this large does not wait for more. */
export const JOIN_BELOW_BYTES = 8 * 1024;
/**
 * Output of one exec held between host and caller, both streams together: what a stalled reader costs. It is the SSH
 * receive window, so the host stops sending there.
 */
export const OUTPUT_BUFFER_MAX_BYTES = 1024 * 1024;
/** Lines of one exec that the operating system has not taken yet, beyond which the next one waits. On top of the above. */
export const UNSENT_MAX_BYTES = 256 * 1024;

/** A client that takes longer for its headers (and the TLS handshake before), or for the whole request with its body, is cut off. */
export const HEADERS_MAX_MS = 10_000;
export const REQUEST_MAX_MS = 60_000;
export const HEADERS_MAX_BYTES = 16 * 1024;
/** Longer than the 60 s after which common load balancers drop an idle connection, so that they are the first to close. */
export const KEEP_ALIVE_MS = 65_000;
/** An answer is complete: a client that takes no byte of it for this long is cut off. */
export const ANSWER_STALL_MAX_MS = 30_000;
/** After the answer to what was no request, the connection is closed, whatever the client does. */
export const FAREWELL_MAX_MS = 2_000;
/**
 * Connections at once; further ones are closed as they come. Twice the execs that a gateway runs by default; with the
 * tunnels and the database below 10,000 file descriptors.
 */
export const CONNECTIONS_MAX = 8_192;
/**
 * Execs at once are limited over all replicas (exec/room.ts). So often each learns what the others hold and gives back what
 * it does not need; a replica that comes or goes unheard is known after this, and until then what it starts may come on top.
 */
export const ROOM_EVERY_MS = 1_000;
/** Where nothing was left, the others are asked again after this at the earliest: who is refused in a loop costs no more. */
export const ROOM_ASK_AGAIN_MS = 100;
/** Execs of one token at once: half of what its org has by default, so that one script leaves room for the others. */
export const EXECS_PER_TOKEN_MAX = 512;
/**
 * Wrong credentials from one address in a minute, until new ones from there are not looked at. Ten a second: far above
 * what a misconfigured client sends, and nothing against a key of 256 bits.
 */
export const GUESSES_PER_MIN = 600;
/** Addresses of which guesses are counted at once; the oldest is forgotten first. About 2 MB. */
export const GUESS_ADDRESSES_MAX = 10_000;

/** OpenSSH MaxSessions is 10 per connection: 8 execs, one channel for control, one spare. */
export const EXECS_PER_SESSION = 8;
/** A host may close channels on which nothing happens (OpenSSH ChannelTimeout): one opened ahead is not kept for longer. */
export const CHANNEL_AHEAD_MAX_MS = 60_000;
/** After a channel was taken: a program that has not ended by then runs on, and the next one may come at any time. */
export const CHANNEL_REFILL_MS = 50;
/** An unused connection is closed after this. */
export const SESSION_IDLE_MS = 60_000;
/** A session older than this takes no new execs: an EC2 Instance Connect tunnel is cut after one hour, exec runs are minutes. */
export const SESSION_MAX_AGE_MS = 50 * 60_000;
/** AWS: 20 connections per EC2 Instance Connect Endpoint, not adjustable. All replicas together. */
export const TUNNELS_PER_ENDPOINT = 20;
/** While others wait for a place, a session in use keeps its own for this long before it takes no new execs. */
export const SESSION_HOLD_MIN_MS = 1_000;
/** An opening belongs to the pool, not to a caller; no caller may wait longer than this either. */
export const SESSION_OPEN_MAX_MS = CONNECT_TIMEOUT_MAX_S * 1000;
/** OpenSSH MaxStartups is 10:30:100: more than 10 unauthenticated connections at once are dropped at random. */
export const OPENINGS_PER_HOST = 4;
/** Keep-alives notice a dead tunnel within about 30 s. */
export const SSH_KEEPALIVE_MS = 10_000;
export const SSH_KEEPALIVE_MAX_MISSED = 3;

/** Lists. */
export const LIST_LIMIT_DEFAULT = 100;
export const LIST_LIMIT_MAX = 500;
/** Tokens. */
export const TOKEN_LIFE_MAX_S = 90 * 24 * 3600;
export const TOKEN_LIFE_DEFAULT_S = 24 * 3600;
/** Sessions of people. Clocks of gateway and issuer differ: so much early a session may be used. Its end has no such tolerance. */
export const SESSION_EARLY_MAX_S = 60;
/** What common issuers give an access token at most by default. One that lives longer is refused: nobody here can revoke it. */
export const SESSION_LIFE_MAX_S = 24 * 3600;
/** OpenID Connect Core, section 2: a `sub` has at most 255 ASCII characters. */
export const SUB_MAX_CHARS = 255;
/** After this the issuer's keys are asked for again, and a session is verified again: a withdrawn key is believed for twice that at most. */
export const ISSUER_KEYS_FRESH_MS = 10 * 60_000;
/** While the issuer does not answer, the keys it had go on for this long. */
export const ISSUER_KEYS_KEEP_MS = 24 * 3600_000;
/** A key that nobody knows makes the issuer be asked, but not more often than this, whether it answers or not. */
export const ISSUER_ASK_EVERY_MS = 5_000;
/** Its document and its keys together. */
export const ISSUER_ANSWER_MAX_MS = 5_000;
/** Each of the two; large issuers publish about 10 KiB. */
export const ISSUER_ANSWER_MAX_BYTES = 256 * 1024;
/** Refusals after authentication become rows, at most this many per actor and minute; the rest is counted in a log line. */
export const REFUSED_ROWS_PER_MINUTE = 60;
/** Steps of the way in one audit row, the last ones: a dozen, and more only where attempts were repeated. */
export const TOOL_TRACE_STEPS_MAX = 48;
/** Audit summaries, in characters (not bytes: half a character is no valid text). */
export const SUMMARY_MAX_CHARS = 200;

/** On SIGTERM running execs may go on for this long; orchestrators commonly kill after 30 s. */
export const DRAIN_GRACE_MS = 15_000;
/** Stopping: how long rows may take to become durable. */
export const FLUSH_MAX_MS = 5_000;
/** Stopping: how long the receiver of traces may take for the last spans. */
export const TRACES_FLUSH_MAX_MS = 2_000;
/** A receiver of traces that is gone is one line so often. */
export const TRACES_WARN_EVERY_MS = 60_000;
/** /readyz: how long the database may take to answer. */
export const READY_CHECK_MS = 2_000;

/** A diagnosis: the whole answer, */
export const DIAGNOSE_MAX_MS = 30_000;
/** the way to the host (as an exec has by default), and starting one program there. */
export const DIAGNOSE_CONNECT_MAX_MS = CONNECT_TIMEOUT_DEFAULT_S * 1000;
/** One step in which only the host keeps us waiting: a healthy one answers in a second. */
export const DIAGNOSE_STEP_MAX_MS = 8_000;
export const DIAGNOSE_CHANNEL_MAX_MS = 5_000;
/** Enough for the last screen of a console. */
export const CONSOLE_TAIL_CHARS = 4 * 1024;
/** A rescue: one section, all commands together (with the diagnosis below the 60 s of common proxies), how many at once. */
export const RESCUE_SECTION_MAX_MS = 10_000;
export const RESCUE_SECTION_MAX_BYTES = 64 * 1024;
export const RESCUE_RUN_MAX_MS = 30_000;
export const RESCUE_AT_ONCE = 4;
/** Kept of one workspace. */
export const RESCUES_KEPT = 3;

/** Audit entries are sealed within 5 s of their commit: this, a sealer's frozen transaction, and the batches of others. */
export const SEAL_EVERY_MS = 1_000;
/** A sealer that stops between two statements of a transaction (a frozen process) loses its lock after this. */
export const SEAL_IDLE_MAX_MS = 2_000;
/** One transaction of a sealer: hashing that many takes milliseconds, so a gateway's other work hardly waits, */
export const SEAL_BATCH_MAX_ENTRIES = 500;
/** and bodies are at most some 300 KiB each. */
export const SEAL_BATCH_MAX_BYTES = 4 * 1024 * 1024;
/** The gauge of what is not sealed counts no further. */
export const UNSEALED_COUNT_MAX = 100_000;
/** A chain that grows is signed this often, */
export const CHECKPOINT_EVERY_MS = 60_000;
/** looked for by every replica this often. */
export const CHECKPOINT_LOOK_EVERY_MS = 15_000;
/** Stopping: sealing and signing the last entries. */
export const SEAL_STOP_MAX_MS = 3_000;
