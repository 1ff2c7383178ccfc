// Posts an event with the SDK as it comes: post URL KEY MODE ID. Prints the status.
package main

import (
	"context"
	"fmt"
	"net/http"
	"os"

	cloudevents "github.com/cloudevents/sdk-go/v2"
	"github.com/cloudevents/sdk-go/v2/binding"
	cehttp "github.com/cloudevents/sdk-go/v2/protocol/http"
)

func main() {
	url, key, mode, id := os.Args[1], os.Args[2], os.Args[3], os.Args[4]
	event := cloudevents.NewEvent()
	event.SetID(id)
	event.SetSource("/kitchen")
	event.SetType("menu.changed")
	event.SetSubject("Käse 100 %")
	event.SetExtension("channel", "topic:menu")
	event.SetExtension("comexampleextension1", "value")
	data := map[string]any{"dish": "Soufflé ☕", "prices": []any{1, nil, 2.5}}
	if err := event.SetData(cloudevents.ApplicationJSON, data); err != nil {
		panic(err)
	}
	ctx := binding.WithForceStructured(context.Background())
	if mode == "binary" {
		ctx = binding.WithForceBinary(context.Background())
	}
	request, err := http.NewRequest(http.MethodPost, url, nil)
	if err != nil {
		panic(err)
	}
	if err := cehttp.WriteRequest(ctx, binding.ToMessage(&event), request); err != nil {
		panic(err)
	}
	request.Header.Set("Authorization", "Bearer "+key)
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		panic(err)
	}
	fmt.Println(answer.StatusCode)
}
