"""Django Channels with channels_redis, as the tutorial in its documentation has it; a group a customer."""
