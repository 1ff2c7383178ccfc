/* load: opens WebSockets as it is told, and counts what comes.
 *
 * One thread, one epoll loop; a read and a scan of some 300 bytes a delivery, so that it is never the
 * bottleneck. It takes commands from standard input, a line each, and answers each with a line of JSON:
 *
 *   connect FILE INFLIGHT   open a connection for each line of FILE, so many at a time
 *   wait DELIVERIES MS      until so many events have come since the last reset, or time is up
 *   reset                   forget what has been counted; connections and their places stay
 *   close                   drop all connections, without a word
 *
 * A line of FILE: port, request target, headers, ready; separated by tabs, headers by 0x1f. A connection is
 * ready when it has the 101 and `ready` messages after it (a hello, say).
 *
 * An event is a text message that contains "n":<number>, which must grow by one from event to event of a
 * connection, and "sent":<nanoseconds of CLOCK_MONOTONIC>, from which its latency is counted. `--engineio`
 * speaks as much of Engine.IO 4 and Socket.IO 5 as a client needs: it joins the default namespace and
 * answers pings.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { MAX_READ = 1 << 20, MAX_EVENTS = 512, SUB_BITS = 7, BUCKETS = 64 << SUB_BITS };
enum { TEXT = 1, CLOSE = 8, PING = 9, PONG = 10 };

/* RFC 6455 1.3's own example: the key that is always asked with, and the only right answer to it. */
static const char KEY[] = "dGhlIHNhbXBsZSBub25jZQ==", ACCEPT[] = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

enum state { UNUSED, CONNECTING, HANDSHAKE, OPENING, READY, CLOSED };

struct connection {
    int fd;
    enum state state;
    int messages_left; /* until it is ready */
    unsigned partial_size;
    long long place; /* the last event's n; 0 before the first */
    char *line;      /* of the file; freed when the request is sent */
    unsigned char *partial;
};

static struct connection *connections;
static int total, next_to_open, inflight, max_inflight, ready, failed;
static int epoll_fd, engineio;
static unsigned char buffer[MAX_READ];
static char first_error[256];

static long long delivered, disordered, others, closed, bytes, last_at, reset_at, connect_at, ready_at;
static long long histogram[BUCKETS], slowest;

enum { IDLE, WAITING_READY, WAITING_DELIVERIES } waiting = IDLE;
static long long goal, deadline;

static long long now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static double cpu(void) {
    struct rusage used;
    getrusage(RUSAGE_SELF, &used);
    return used.ru_utime.tv_sec + used.ru_stime.tv_sec + (used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1e6;
}

static void die(const char *what) {
    perror(what);
    exit(1);
}

/* Latencies: exact to 1 in 128, in 64 powers of two. */
static void count_latency(long long ns) {
    if (ns < 0) ns = 0;
    if (ns > slowest) slowest = ns;
    unsigned power = ns < (1 << SUB_BITS) ? 0 : 63 - __builtin_clzll(ns) - SUB_BITS + 1;
    unsigned sub = power ? (ns >> (power - 1)) & ((1 << SUB_BITS) - 1) : ns;
    histogram[(power << SUB_BITS) + sub]++;
}

static double percentile_ms(double fraction) {
    long long all = 0, seen = 0;
    for (int i = 0; i < BUCKETS; i++) all += histogram[i];
    if (!all) return 0;
    for (int i = 0; i < BUCKETS; i++) {
        seen += histogram[i];
        if (histogram[i] && seen >= fraction * all) {
            unsigned power = i >> SUB_BITS, sub = i & ((1 << SUB_BITS) - 1);
            long long ns = power ? (((1LL << SUB_BITS) | sub) << (power - 1)) : sub;
            return ns / 1e6;
        }
    }
    return slowest / 1e6;
}

static void reset(void) {
    delivered = disordered = others = bytes = slowest = 0;
    memset(histogram, 0, sizeof histogram);
    reset_at = last_at = now();
}

static void answer(void) {
    waiting = IDLE;
    printf("{\"ready\":%d,\"failed\":%d,\"closed\":%lld,\"connect_seconds\":%.6f,\"delivered\":%lld,"
           "\"disordered\":%lld,\"others\":%lld,\"bytes\":%lld,\"seconds\":%.6f,\"p50_ms\":%.4f,\"p99_ms\":%.4f,"
           "\"p999_ms\":%.4f,\"max_ms\":%.4f,\"cpu\":%.6f,\"error\":\"%s\"}\n",
           ready, failed, closed, (ready_at - connect_at) / 1e9, delivered, disordered, others, bytes,
           (last_at - reset_at) / 1e9, percentile_ms(0.5), percentile_ms(0.99), percentile_ms(0.999), slowest / 1e6,
           cpu(), first_error);
    fflush(stdout);
}

static void answer_if_due(void) {
    if (waiting == WAITING_READY && ready + failed == total) answer();
    if (waiting == WAITING_DELIVERIES && delivered >= goal) answer();
    if (waiting != IDLE && now() >= deadline) answer();
}

__attribute__((format(printf, 1, 2))) static void note_error(const char *format, ...) {
    if (first_error[0]) return;
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(first_error, sizeof first_error, format, arguments);
    va_end(arguments);
    for (char *c = first_error; *c; c++)
        if (*c < ' ' || *c == '"' || *c == '\\') *c = ' ';
}

static void drop(struct connection *c, const char *why) {
    if (c->state == CLOSED) return;
    if (c->state == READY) {
        closed++;
    } else {
        failed++;
        inflight--;
    }
    if (why) note_error("%s", why);
    /* With a RST: thousands of sockets in TIME_WAIT would keep their ports from the next round. */
    struct linger at_once = {1, 0};
    setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
    close(c->fd);
    free(c->partial);
    free(c->line);
    c->partial = NULL;
    c->line = NULL;
    c->state = CLOSED;
}

static void open_one(struct connection *c) {
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(atoi(c->line))};
    inet_pton(AF_INET, "127.0.0.1", &to.sin_addr);
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (c->fd < 0) die("socket");
    int one = 1;
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    c->state = CONNECTING;
    inflight++;
    if (connect(c->fd, (struct sockaddr *)&to, sizeof to) < 0 && errno != EINPROGRESS) {
        drop(c, strerror(errno));
        return;
    }
    struct epoll_event event = {.events = EPOLLOUT | EPOLLIN, .data.u32 = c - connections};
    if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, c->fd, &event) < 0) die("epoll_ctl");
}

static void open_more(void) {
    while (next_to_open < total && inflight < max_inflight) open_one(&connections[next_to_open++]);
}

static void send_request(struct connection *c) {
    static char request[16384], headers[12288];
    char *fields = c->line, *port = strsep(&fields, "\t"), *target = strsep(&fields, "\t");
    char *given = strsep(&fields, "\t");
    c->messages_left = fields ? atoi(fields) : 0;
    size_t size = 0;
    headers[0] = 0;
    for (char *header; (header = strsep(&given, "\x1f"));)
        if (*header) size += snprintf(headers + size, sizeof headers - size, "%s\r\n", header);
    int length = snprintf(request, sizeof request,
                          "GET %s HTTP/1.1\r\nHost: 127.0.0.1:%s\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                          "Sec-WebSocket-Key: %s\r\nSec-WebSocket-Version: 13\r\n%s\r\n",
                          target, port, KEY, headers);
    free(c->line);
    c->line = NULL;
    if (send(c->fd, request, length, MSG_NOSIGNAL) != length) {
        drop(c, "the request could not be sent at once");
        return;
    }
    c->state = HANDSHAKE;
    struct epoll_event event = {.events = EPOLLIN, .data.u32 = c - connections};
    epoll_ctl(epoll_fd, EPOLL_CTL_MOD, c->fd, &event);
}

/* Clients' frames are masked; a mask of zeros is one, and leaves the payload as it is. */
static void send_frame(struct connection *c, int opcode, const void *payload, size_t size) {
    unsigned char frame[6 + 125] = {0x80 | opcode, 0x80 | size, 0, 0, 0, 0};
    if (size > 125) return;
    memcpy(frame + 6, payload, size);
    if (send(c->fd, frame, 6 + size, MSG_NOSIGNAL) < 0 && errno != EAGAIN) drop(c, strerror(errno));
}

static void become_ready(struct connection *c) {
    c->state = READY;
    ready++;
    inflight--;
    ready_at = now();
    open_more();
}

static long long number_after(const unsigned char *text, size_t size, const char *name) {
    const unsigned char *at = memmem(text, size, name, strlen(name)), *end = text + size;
    if (!at) return -1;
    long long number = 0;
    for (at += strlen(name); at < end && *at == ' '; at++) {}
    for (; at < end && *at >= '0' && *at <= '9'; at++) number = number * 10 + *at - '0';
    return number;
}

static void take_text(struct connection *c, const unsigned char *text, size_t size, long long at) {
    if (engineio && size == 1 && text[0] == '2') {
        send_frame(c, TEXT, "3", 1);
        return;
    }
    long long n = number_after(text, size, "\"n\":");
    if (n < 0) {
        others++;
        if (engineio && size && text[0] == '0') send_frame(c, TEXT, "40", 2);
        if (c->state == OPENING && --c->messages_left <= 0) become_ready(c);
        return;
    }
    delivered++;
    bytes += size;
    last_at = at;
    if (c->place && n != c->place + 1) {
        disordered++;
        note_error("%lld after %lld", n, c->place);
    }
    c->place = n;
    long long sent = number_after(text, size, "\"sent\":");
    if (sent > 0) count_latency(at - sent);
}

/* What of the bytes is whole frames is taken; returns how many bytes that were. */
static size_t take_frames(struct connection *c, const unsigned char *data, size_t size, long long at) {
    size_t taken = 0;
    while (size - taken >= 2 && c->state != CLOSED) {
        const unsigned char *frame = data + taken;
        size_t left = size - taken, head = 2, length = frame[1] & 127;
        if (length == 126) {
            if (left < 4) break;
            head = 4, length = frame[2] << 8 | frame[3];
        } else if (length == 127) {
            if (left < 10) break;
            head = 10, length = 0;
            for (int i = 2; i < 10; i++) length = length << 8 | frame[i];
        }
        if (left < head + length) break;
        taken += head + length;
        if ((frame[0] & 15) == TEXT) take_text(c, frame + head, length, at);
        if ((frame[0] & 15) == PING) send_frame(c, PONG, frame + head, length);
        if ((frame[0] & 15) == CLOSE) {
            static char why[160];
            snprintf(why, sizeof why, "closed with %d %.*s", length >= 2 ? frame[head] << 8 | frame[head + 1] : 1005,
                     length > 2 ? (int)length - 2 : 0, frame + head + 2);
            drop(c, why);
        }
    }
    return taken;
}

static size_t take_handshake(struct connection *c, unsigned char *data, size_t size) {
    unsigned char *end = memmem(data, size, "\r\n\r\n", 4);
    if (!end) return 0;
    if (memcmp(data, "HTTP/1.1 101", 12) || !memmem(data, size, ACCEPT, sizeof ACCEPT - 1)) {
        static char why[160];
        snprintf(why, sizeof why, "refused: %.*s", size > 100 ? 100 : (int)size, data);
        drop(c, why);
        return size;
    }
    c->state = OPENING;
    if (c->messages_left <= 0) become_ready(c);
    return end + 4 - data;
}

static void take_bytes(struct connection *c) {
    size_t kept = c->partial_size;
    if (kept) memcpy(buffer, c->partial, kept);
    ssize_t got = recv(c->fd, buffer + kept, sizeof buffer - kept, 0);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (got <= 0) {
        drop(c, got ? strerror(errno) : "the server closed the connection");
        return;
    }
    long long at = now();
    size_t size = kept + got, taken = c->state == HANDSHAKE ? take_handshake(c, buffer, size) : 0;
    if (c->state > HANDSHAKE) taken += take_frames(c, buffer + taken, size - taken, at);
    if (c->state == CLOSED) return;
    c->partial_size = size - taken;
    free(c->partial);
    c->partial = NULL;
    if (c->partial_size) {
        c->partial = malloc(c->partial_size);
        memcpy(c->partial, buffer + taken, c->partial_size);
    }
}

static void close_all(void) {
    for (int i = 0; i < total; i++)
        if (connections[i].state != UNUSED) drop(&connections[i], NULL);
    total = next_to_open = inflight = ready = failed = 0;
    closed = 0;
    first_error[0] = 0;
}

static void start_connecting(const char *path, int at_a_time) {
    close_all();
    FILE *file = fopen(path, "r");
    if (!file) die(path);
    char *line = NULL;
    size_t room = 0;
    for (ssize_t length; (length = getline(&line, &room, file)) > 0; total++) {
        line[strcspn(line, "\n")] = 0;
        connections = realloc(connections, (total + 1) * sizeof *connections);
        connections[total] = (struct connection){.fd = -1, .line = strdup(line)};
    }
    free(line);
    fclose(file);
    max_inflight = at_a_time;
    connect_at = ready_at = now();
    open_more();
}

static void take_command(char *line) {
    char path[4096];
    long long number, milliseconds;
    if (sscanf(line, "connect %4095s %lld %lld", path, &number, &milliseconds) == 3) {
        start_connecting(path, number);
        waiting = WAITING_READY;
        deadline = now() + milliseconds * 1000000;
    } else if (sscanf(line, "wait %lld %lld", &number, &milliseconds) == 2) {
        goal = number;
        waiting = WAITING_DELIVERIES;
        deadline = now() + milliseconds * 1000000;
    } else if (!strcmp(line, "reset")) {
        reset();
        answer();
    } else if (!strcmp(line, "close")) {
        close_all();
        answer();
    } else {
        fprintf(stderr, "load: unknown command: %s\n", line);
        exit(2);
    }
}

static void take_commands(void) {
    static char input[8192];
    static size_t have;
    ssize_t got = read(0, input + have, sizeof input - 1 - have);
    if (got <= 0) exit(0); /* whoever commands us is gone */
    have += got;
    input[have] = 0;
    for (char *end; (end = memchr(input, '\n', have));) {
        *end = 0;
        take_command(input);
        have -= end + 1 - input;
        memmove(input, end + 1, have + 1);
    }
}

int main(int count, char **words) {
    engineio = count > 1 && !strcmp(words[1], "--engineio");
    signal(SIGPIPE, SIG_IGN);
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event commands = {.events = EPOLLIN, .data.u32 = UINT32_MAX}, events[MAX_EVENTS];
    if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, 0, &commands) < 0) die("epoll_ctl");
    reset();
    for (;;) {
        int many = epoll_wait(epoll_fd, events, MAX_EVENTS, waiting == IDLE ? -1 : 5);
        for (int i = 0; i < many; i++) {
            if (events[i].data.u32 == UINT32_MAX) {
                take_commands();
                continue;
            }
            struct connection *c = &connections[events[i].data.u32];
            if (events[i].data.u32 >= (unsigned)total || c->state == CLOSED) continue;
            if (c->state == CONNECTING && events[i].events & EPOLLOUT) send_request(c);
            else take_bytes(c);
        }
        open_more();
        answer_if_due();
    }
}
