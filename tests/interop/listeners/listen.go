// go run listen.go URL TOKEN: Go's net/http, which polls, prints the `n` of each event and comes back by itself.
package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"time"
)

type answer struct {
	Events []struct {
		Data struct{ N int }
	}
	Cursor string
}

func poll(address, token, after string) (got answer, err error) {
	query := url.Values{"wait": {"25"}}
	if after != "" {
		query.Set("after", after)
	}
	request, err := http.NewRequest("GET", address+"?"+query.Encode(), nil)
	if err != nil {
		return got, err
	}
	request.Header.Set("Authorization", "Bearer "+token)
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return got, err
	}
	defer response.Body.Close()
	if response.StatusCode != 200 {
		return got, fmt.Errorf("%s", response.Status)
	}
	return got, json.NewDecoder(response.Body).Decode(&got)
}

func main() {
	after := ""
	for {
		got, err := poll(os.Args[1], os.Args[2], after)
		if err != nil {
			time.Sleep(200 * time.Millisecond)
			continue
		}
		for _, event := range got.Events {
			fmt.Println(event.Data.N)
		}
		after = got.Cursor
	}
}
