#!/bin/sh
# listen.sh CURL URL TOKEN: curl reads an event stream, prints the `n` of each event and comes back with the last id.
last=
while :; do
  "$1" -sN -H "Authorization: Bearer $3" -H "Accept: text/event-stream" ${last:+-H "Last-Event-ID: $last"} "$2" |
    while IFS= read -r line; do
      case $line in
        "id: "*) printf '%s' "${line#id: }" > "$4" ;;
        data:*'"n":'*) n=${line##*'"n":'}; echo "${n%%[!0-9]*}" ;;
      esac
    done
  last=$(cat "$4" 2>/dev/null)
  sleep 0.2
done
