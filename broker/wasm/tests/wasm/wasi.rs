//! What of WASI is there, and what isn't.

use fleetline_worker::{LogLevel, Outcome};

use crate::app::{App, event, failure};
use crate::guest::wasi_module;

fn guest(body: &str) -> Vec<u8> {
    wasi_module(&format!(
        r#"(module
          (import "wasi:clocks/wall-clock@0.2.12" "now" (func $wall (param i32)))
          (import "wasi:clocks/monotonic-clock@0.2.12" "now" (func $monotonic (result i64)))
          (import "wasi:clocks/monotonic-clock@0.2.12" "subscribe-instant" (func $wait (param i64) (result i32)))
          (import "wasi:random/random@0.2.3" "get-random-u64" (func $random (result i64)))
          (import "wasi:random/random@0.2.3" "get-random-bytes" (func $bytes (param i64 i32)))
          (import "wasi:random/insecure-seed@0.2.3" "insecure-seed" (func $seed (param i32)))
          (import "wasi:filesystem/types@0.2.0" "open" (func $open (result i32)))
          (import "wasi:io/streams@0.2.1" "[method]output-stream.check-write" (func $room (param i32 i32)))
          (import "wasi:io/streams@0.2.1" "[method]output-stream.blocking-write-and-flush"
            (func $write (param i32 i32 i32 i32)))
          (import "wasi:io/streams@0.2.1" "[resource-drop]output-stream" (func $close (param i32)))
          (import "wasi:cli/stdout@0.2.1" "get-stdout" (func $stdout (result i32)))
          (import "wasi:cli/stderr@0.2.1" "get-stderr" (func $stderr (result i32)))
          (import "wasi:cli/environment@0.2.1" "get-environment" (func $environment (param i32)))
          (import "wasi:cli/exit@0.2.1" "exit" (func $exit (param i32)))
          (memory (export "memory") 4)
          (data (i32.const 1024) "one\ntwo and more\r\n\nlast")
          (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (i32.const 65536))
          (func $check (param i32) (if (i32.eqz (local.get 0)) (then (unreachable))))
          (func (export "handle-batch") (param i32) (result i32) {body} (i32.const 64)))"#
    ))
}

#[tokio::test]
async fn clocks_and_random_numbers_are_there() {
    // A second after 2020; two looks at the clock in order; two numbers that differ; bytes with a length.
    let guest = guest(
        "(local $first i64)
             (call $wall (i32.const 16))
             (call $check (i64.gt_u (i64.load (i32.const 16)) (i64.const 1577836801)))
             (local.set $first (call $monotonic))
             (call $check (i64.le_u (local.get $first) (call $monotonic)))
             (call $check (i64.ne (call $random) (call $random)))
             (call $bytes (i64.const 32) (i32.const 16))
             (call $check (i32.eq (i32.load (i32.const 20)) (i32.const 32)))
             (call $seed (i32.const 32))
             (call $check (i64.ne (i64.load (i32.const 32)) (i64.load (i32.const 40))))",
    );
    let app = App::start("eventHubTrigger", &guest).await;
    assert_eq!(app.invoke(event("")).await.unwrap().outcome, Outcome::Success);
}

#[tokio::test]
async fn what_is_not_there_traps_when_it_is_called() {
    for (call, name) in [
        ("(drop (call $open))", "wasi:filesystem/types@0.2.0#open"),
        ("(call $exit (i32.const 1))", "exited with failure"),
        ("(drop (call $wait (i64.const 1)))", "wasi:clocks/monotonic-clock@0.2.12#subscribe-instant"),
        ("(call $bytes (i64.const 1000000000) (i32.const 16))", "1000000000 random bytes"),
    ] {
        let app = App::start("eventHubTrigger", &guest(call)).await;
        let error = failure(app.invoke(event("")).await);
        assert!(error.message.contains(name), "{}", error.message);
    }
}

#[tokio::test]
async fn output_becomes_log_lines() {
    // "one\ntwo" and " and more\r\n\nlast" to standard error, "one" to standard output between them.
    let guest = guest(
        "(local $out i32) (local $err i32)
         (local.set $out (call $stdout)) (local.set $err (call $stderr))
         (call $room (local.get $err) (i32.const 16))
         (call $check (i64.ge_u (i64.load (i32.const 24)) (i64.const 4096)))
         (call $write (local.get $err) (i32.const 1024) (i32.const 7) (i32.const 16))
         (call $write (local.get $out) (i32.const 1024) (i32.const 3) (i32.const 16))
         (call $write (local.get $err) (i32.const 1031) (i32.const 16) (i32.const 16))
         (call $environment (i32.const 32))
         (call $check (i32.eqz (i32.load (i32.const 36))))
         (call $close (local.get $err))",
    );
    let app = App::start("eventHubTrigger", &guest).await;
    assert_eq!(app.invoke(event("")).await.unwrap().outcome, Outcome::Success);
    let mut lines: Vec<_> =
        app.lines.0.lock().iter().map(|line| (line.level, line.message.clone())).collect();
    lines.sort();
    assert_eq!(
        lines,
        [
            (LogLevel::Information, "one".into()),
            (LogLevel::Error, "last".into()),
            (LogLevel::Error, "one".into()),
            (LogLevel::Error, "two and more".into()),
        ]
    );
}
