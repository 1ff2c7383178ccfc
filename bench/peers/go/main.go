// gorilla/websocket + go-redis: one channel that all gateways hear, and a map from customer to sockets. Two
// goroutines a socket and a queue between them, as gorilla's chat example has them.
package main

import (
	"context"
	"encoding/json"
	"log"
	"net/http"
	"os"
	"sync"

	"github.com/gorilla/websocket"
	"github.com/redis/go-redis/v9"
)

const queued = 256 // messages of one socket

type message struct {
	Customer *string
	Event    json.RawMessage
}

type client struct {
	socket *websocket.Conn
	send   chan []byte
}

type hub struct {
	mutex     sync.Mutex
	customers map[string]map[*client]bool
}

func (h *hub) enter(customer string, c *client) {
	h.mutex.Lock()
	defer h.mutex.Unlock()
	if h.customers[customer] == nil {
		h.customers[customer] = map[*client]bool{}
	}
	h.customers[customer][c] = true
}

func (h *hub) leave(customer string, c *client) {
	h.mutex.Lock()
	defer h.mutex.Unlock()
	if h.customers[customer][c] {
		delete(h.customers[customer], c)
		if len(h.customers[customer]) == 0 {
			delete(h.customers, customer)
		}
		close(c.send)
	}
}

func (h *hub) deliver(m message) {
	h.mutex.Lock()
	defer h.mutex.Unlock()
	if m.Customer != nil {
		queue(h.customers[*m.Customer], m.Event)
		return
	}
	for _, clients := range h.customers {
		queue(clients, m.Event)
	}
}

func queue(clients map[*client]bool, event []byte) {
	for c := range clients {
		select {
		case c.send <- event:
		default: // it does not read
			c.socket.Close()
		}
	}
}

func (c *client) write() {
	defer c.socket.Close()
	for event := range c.send {
		if err := c.socket.WriteMessage(websocket.TextMessage, event); err != nil {
			return
		}
	}
}

func main() {
	port, redisPort := os.Args[1], os.Args[2]
	h := &hub{customers: map[string]map[*client]bool{}}
	upgrader := websocket.Upgrader{}
	http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		socket, err := upgrader.Upgrade(w, r, nil)
		if err != nil {
			return
		}
		customer, c := r.URL.Query().Get("customer"), &client{socket, make(chan []byte, queued)}
		h.enter(customer, c)
		go c.write()
		go func() {
			defer h.leave(customer, c)
			for {
				if _, _, err := socket.ReadMessage(); err != nil {
					return
				}
			}
		}()
	})
	messages := redis.NewClient(&redis.Options{Addr: "127.0.0.1:" + redisPort}).Subscribe(context.Background(), "events")
	go func() {
		for received := range messages.Channel(redis.WithChannelSize(10_000)) {
			var m message
			if err := json.Unmarshal([]byte(received.Payload), &m); err != nil {
				log.Fatal(err)
			}
			h.deliver(m)
		}
	}()
	log.Fatal(http.ListenAndServe("127.0.0.1:"+port, nil))
}
