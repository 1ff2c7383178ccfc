// Mercure's hub as a library, and a subscription to Redis that hands it what other processes publish: the hub's
// own transports are for one process alone.
package main

import (
	"context"
	"log"
	"net/http"
	"os"
	"strings"

	"github.com/dunglas/mercure"
	"github.com/redis/go-redis/v9"
)

const secret = "nothing-is-published-over-http-here"

func main() {
	port, redisPort := os.Args[1], os.Args[2]
	transport, err := mercure.NewLocalTransport(nil, nil)
	if err != nil {
		log.Fatal(err)
	}
	hub, err := mercure.NewHub(
		mercure.WithTransport(transport),
		mercure.WithAnonymous(),
		mercure.WithPublisherJWT([]byte(secret), "HS256"),
		mercure.WithSubscriberJWT([]byte(secret), "HS256"),
	)
	if err != nil {
		log.Fatal(err)
	}
	messages := redis.NewClient(&redis.Options{Addr: "127.0.0.1:" + redisPort}).PSubscribe(context.Background(), "one:*")
	go func() {
		for message := range messages.Channel(redis.WithChannelSize(10_000)) {
			update := &mercure.Update{
				Topics: []string{strings.TrimPrefix(message.Channel, "one:")},
				Event:  mercure.Event{Data: message.Payload},
			}
			if err := transport.Dispatch(update); err != nil {
				log.Fatal(err)
			}
		}
	}()
	http.Handle("/.well-known/mercure", hub)
	log.Fatal(http.ListenAndServe("127.0.0.1:"+port, nil))
}
