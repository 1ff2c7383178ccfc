/* floor: the least that a gateway can be. One thread, one epoll loop, one send() a delivery.
 *
 *   floor PORT REDIS_PORT
 *
 * A connection to /<name> gets what is published to the Redis channels "one:<name>" and "all". No tokens, no
 * places, no limits, no heartbeats; whoever does not read fast enough is dropped.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

enum { MAX_FD = 1 << 17, MAX_EVENTS = 512, MAX_NAME = 64, TABLE = 1 << 15, MAX_READ = 1 << 20 };

/* Who hears a channel. Connections of one name are few, so they are a list through `next`. */
struct channel {
    char name[MAX_NAME];
    int first; /* a file descriptor, or -1 */
    struct channel *collided;
};

static struct channel *table[TABLE];
static struct { int next, previous; struct channel *channel; char open; } connections[MAX_FD];
static int epoll_fd, redis_fd, highest;
static unsigned char replies[MAX_READ * 2];
static size_t replies_size;

static void die(const char *what) {
    perror(what);
    exit(1);
}

static struct channel *find_channel(const char *name, size_t size, int create) {
    uint32_t hash = 2166136261u;
    for (size_t i = 0; i < size; i++) hash = (hash ^ (unsigned char)name[i]) * 16777619u;
    struct channel **at = &table[hash % TABLE];
    for (; *at; at = &(*at)->collided)
        if (!memcmp((*at)->name, name, size) && !(*at)->name[size]) return *at;
    if (!create || size >= MAX_NAME) return NULL;
    *at = calloc(1, sizeof **at);
    memcpy((*at)->name, name, size);
    (*at)->first = -1;
    return *at;
}

static uint32_t rotate(uint32_t word, int bits) { return word << bits | word >> (32 - bits); }

/* RFC 3174, for a message of one or two blocks: a key of 24 characters and the GUID are 60. */
static void sha1(const unsigned char *message, size_t size, unsigned char *digest) {
    unsigned char padded[128] = {0};
    uint32_t h[5] = {0x67452301, 0xEFCDAB89, 0x98BADCFE, 0x10325476, 0xC3D2E1F0};
    size_t whole = size + 9 <= 64 ? 64 : 128;
    memcpy(padded, message, size);
    padded[size] = 0x80;
    for (int i = 0; i < 8; i++) padded[whole - 1 - i] = (uint64_t)size * 8 >> 8 * i;
    for (size_t block = 0; block < whole; block += 64) {
        uint32_t w[80], a = h[0], b = h[1], c = h[2], d = h[3], e = h[4];
        for (int i = 0; i < 16; i++) {
            const unsigned char *at = padded + block + 4 * i;
            w[i] = (uint32_t)at[0] << 24 | at[1] << 16 | at[2] << 8 | at[3];
        }
        for (int i = 16; i < 80; i++) w[i] = rotate(w[i - 3] ^ w[i - 8] ^ w[i - 14] ^ w[i - 16], 1);
        for (int i = 0; i < 80; i++) {
            uint32_t f = i < 20   ? (b & c) | (~b & d)
                         : i < 40 ? b ^ c ^ d
                         : i < 60 ? (b & c) | (b & d) | (c & d)
                                  : b ^ c ^ d;
            uint32_t k = i < 20 ? 0x5A827999 : i < 40 ? 0x6ED9EBA1 : i < 60 ? 0x8F1BBCDC : 0xCA62C1D6;
            uint32_t next = rotate(a, 5) + f + e + k + w[i];
            e = d, d = c, c = rotate(b, 30), b = a, a = next;
        }
        h[0] += a, h[1] += b, h[2] += c, h[3] += d, h[4] += e;
    }
    for (int i = 0; i < 20; i++) digest[i] = h[i / 4] >> 8 * (3 - i % 4);
}

static void base64(const unsigned char *data, int size, char *text) {
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for (int i = 0; i < size; i += 3) {
        uint32_t three = data[i] << 16 | (i + 1 < size ? data[i + 1] << 8 : 0) | (i + 2 < size ? data[i + 2] : 0);
        for (int j = 0; j < 4; j++) *text++ = i + j > size ? '=' : digits[three >> 6 * (3 - j) & 63];
    }
    *text = 0;
}

static void drop(int fd) {
    if (connections[fd].open) {
        int next = connections[fd].next, previous = connections[fd].previous;
        if (previous >= 0) connections[previous].next = next;
        else connections[fd].channel->first = next;
        if (next >= 0) connections[next].previous = previous;
        connections[fd].open = 0;
    }
    close(fd);
}

static void subscribe(const char *name) {
    char command[MAX_NAME + 64];
    int size = snprintf(command, sizeof command, "*2\r\n$9\r\nSUBSCRIBE\r\n$%zu\r\n%s\r\n", strlen(name), name);
    if (send(redis_fd, command, size, MSG_NOSIGNAL) != size) die("redis");
}

static void join(int fd, const char *name) {
    struct channel *channel = find_channel(name, strlen(name), 0);
    if (!channel) {
        channel = find_channel(name, strlen(name), 1);
        subscribe(name);
    }
    connections[fd].channel = channel;
    connections[fd].previous = -1;
    connections[fd].next = channel->first;
    if (channel->first >= 0) connections[channel->first].previous = fd;
    channel->first = fd;
    connections[fd].open = 1;
    if (fd > highest) highest = fd;
}

static void shake_hands(int fd, char *request) {
    static const char guid[] = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
    char *key = strcasestr(request, "\r\nsec-websocket-key: "), name[MAX_NAME] = "one:", accept[32], answer[256];
    unsigned char message[64], digest[20];
    if (!key || strncmp(request, "GET /", 5)) {
        drop(fd);
        return;
    }
    memcpy(message, key + 21, 24);
    memcpy(message + 24, guid, 36);
    sha1(message, 60, digest);
    base64(digest, 20, accept);
    snprintf(name + 4, sizeof name - 4, "%.*s", (int)strcspn(request + 5, " ?"), request + 5);
    int size = snprintf(answer, sizeof answer,
                        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                        "Sec-WebSocket-Accept: %s\r\n\r\n",
                        accept);
    if (send(fd, answer, size, MSG_NOSIGNAL) != size) drop(fd);
    else join(fd, name);
}

static void take_bytes(int fd) {
    char data[8192];
    ssize_t got = recv(fd, data, sizeof data - 1, 0);
    if (got < 0 && errno == EAGAIN) return;
    if (got <= 0) {
        drop(fd);
    } else if (!connections[fd].open) {
        data[got] = 0;
        shake_hands(fd, data);
    } /* else a pong or a close: the socket's end tells what matters */
}

static void take_connections(int listening) {
    for (int fd; (fd = accept4(listening, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0;) {
        int one = 1;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        connections[fd].open = 0;
        struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
        if (fd >= MAX_FD || epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0) die("accept");
    }
}

static void deliver(int fd, const unsigned char *frame, size_t size) {
    if (send(fd, frame, size, MSG_NOSIGNAL) != (ssize_t)size) drop(fd);
}

static void publish(const char *channel, size_t channel_size, const unsigned char *payload, size_t size) {
    static unsigned char frame[MAX_READ + 10] = {0x81};
    size_t head = size < 126 ? 2 : size < 65536 ? 4 : 10;
    frame[1] = size < 126 ? size : size < 65536 ? 126 : 127;
    for (size_t i = 2; i < head; i++) frame[i] = size >> 8 * (head - 1 - i);
    memcpy(frame + head, payload, size);
    if (channel_size == 3 && !memcmp(channel, "all", 3)) {
        for (int fd = 0; fd <= highest; fd++)
            if (connections[fd].open) deliver(fd, frame, head + size);
        return;
    }
    struct channel *one = find_channel(channel, channel_size, 0);
    for (int fd = one ? one->first : -1, next; fd >= 0; fd = next) {
        next = connections[fd].next;
        deliver(fd, frame, head + size);
    }
}

/* "$<size>\r\n<bytes>\r\n": its bytes, and `at` moved behind it. NULL if it is not whole. */
static unsigned char *take_bulk(unsigned char **at, unsigned char *end, size_t *size) {
    unsigned char *line = memchr(*at, '\n', end - *at);
    if (!line) return NULL;
    *size = strtoul((char *)*at + 1, NULL, 10);
    if (line + 1 + *size + 2 > end) return NULL;
    *at = line + 1 + *size + 2;
    return line + 1;
}

/* "*3\r\n", then kind and channel, then for a message its payload and for a subscribe a number. */
static unsigned char *take_reply(unsigned char *at, unsigned char *end) {
    size_t kind_size, channel_size, size;
    unsigned char *line = memchr(at, '\n', end - at), *kind, *channel, *payload;
    if (!line) return NULL;
    at = line + 1;
    if (!(kind = take_bulk(&at, end, &kind_size)) || !(channel = take_bulk(&at, end, &channel_size))) return NULL;
    if (kind_size == 9) { /* subscribe */
        line = memchr(at, '\n', end - at);
        return line ? line + 1 : NULL;
    }
    if (!(payload = take_bulk(&at, end, &size))) return NULL;
    publish((char *)channel, channel_size, payload, size);
    return at;
}

static void take_replies(void) {
    ssize_t got = recv(redis_fd, replies + replies_size, sizeof replies - replies_size, 0);
    if (got < 0 && errno == EAGAIN) return;
    if (got <= 0) die("redis");
    replies_size += got;
    unsigned char *at = replies, *end = replies + replies_size;
    for (unsigned char *next; at < end && (next = take_reply(at, end));) at = next;
    replies_size = end - at;
    memmove(replies, at, replies_size);
}

static int open_socket(int port, int listening) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    int one = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    inet_pton(AF_INET, "127.0.0.1", &address.sin_addr);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (listening) {
        if (bind(fd, (struct sockaddr *)&address, sizeof address) < 0 || listen(fd, 4096) < 0) die("listen");
        fcntl(fd, F_SETFL, O_NONBLOCK);
    } else if (connect(fd, (struct sockaddr *)&address, sizeof address) < 0) {
        die("connect");
    }
    struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
    if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0) die("epoll_ctl");
    return fd;
}

int main(int count, char **words) {
    if (count != 3) {
        fprintf(stderr, "floor PORT REDIS_PORT\n");
        return 2;
    }
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    signal(SIGPIPE, SIG_IGN);
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    redis_fd = open_socket(atoi(words[2]), 0);
    int listening = open_socket(atoi(words[1]), 1);
    subscribe("all");
    struct epoll_event events[MAX_EVENTS];
    for (;;) {
        int many = epoll_wait(epoll_fd, events, MAX_EVENTS, -1);
        for (int i = 0; i < many; i++) {
            int fd = events[i].data.fd;
            if (fd == listening) take_connections(fd);
            else if (fd == redis_fd) take_replies();
            else take_bytes(fd);
        }
    }
}
