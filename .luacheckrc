-- The scripts run inside Redis, which has Lua 5.1 and these globals.
std = "lua51"
read_globals = {"redis", "KEYS", "ARGV"}
max_line_length = 120
