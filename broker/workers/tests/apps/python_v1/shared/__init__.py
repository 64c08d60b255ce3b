GREETING = "hello from v1"
