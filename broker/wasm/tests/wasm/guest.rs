//! Components for tests: a core module as text, with the canonical layout of `wit/fleetline.wit` written
//! out, wrapped as `wit-component` wraps what a compiler gives.
//!
//! `handle-batch` gets the address of a batch and returns the address of a result, both as the canonical
//! ABI lays them out (component model, "Canonical ABI explainer", flattening and storing).

use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::{PackageId, Resolve, WorldId};

/// Where the tests' constants begin; a result stands at 64.
pub const DATA: u32 = 1024;

/// Every component's imports, memory and allocator. `$heap` begins after the constants.
const HEAD: &str = r#"
  (import "fleetline:functions/logging@1.0.0" "log" (func $log (param i32 i32 i32)))
  (import "fleetline:functions/state@1.0.0" "get" (func $get (param i32 i32 i32)))
  (import "fleetline:functions/state@1.0.0" "set" (func $set (param i32 i32 i32 i32 i32)))
  (import "fleetline:functions/state@1.0.0" "delete" (func $delete (param i32 i32)))
  (import "fleetline:functions/settings@1.0.0" "get" (func $setting (param i32 i32 i32)))
  (memory (export "memory") 2)
  (global $heap (mut i32) (i32.const 65536))
  (func $alloc (export "cabi_realloc") (param $old i32) (param $size i32) (param $align i32) (param $new i32) (result i32)
    (local $at i32)
    (local.set $at
      (i32.and (i32.add (global.get $heap) (i32.sub (local.get $align) (i32.const 1)))
               (i32.sub (i32.const 0) (local.get $align))))
    (global.set $heap (i32.add (local.get $at) (local.get $new)))
    (block $enough
      (br_if $enough (i32.le_u (global.get $heap) (i32.shl (memory.size) (i32.const 16))))
      (drop (memory.grow (i32.add (i32.const 1) (i32.shr_u (local.get $new) (i32.const 16))))))
    (local.get $at))
  ;; A result of `count` effects at `list`.
  (func $ok (param $list i32) (param $count i32) (result i32)
    (i32.store8 (i32.const 64) (i32.const 0))
    (i32.store (i32.const 68) (local.get $list))
    (i32.store (i32.const 72) (local.get $count))
    (i32.const 64))
  ;; A failure with the text at `text`.
  (func $failed (param $text i32) (param $bytes i32) (result i32)
    (i32.store8 (i32.const 64) (i32.const 1))
    (i32.store (i32.const 68) (local.get $text))
    (i32.store (i32.const 72) (local.get $bytes))
    (i32.const 64))
"#;

/// A component whose `handle-batch` has this body; `$batch` is the batch's address. `data` lies at [`DATA`].
pub fn component(data: &[u8], body: &str) -> Vec<u8> {
    module(&format!(
        r#"(module {HEAD}
          (data (i32.const {DATA}) "{}")
          (func (export "handle-batch") (param $batch i32) (result i32) {body}))"#,
        escaped(data),
    ))
}

/// A component out of a core module's text.
pub fn module(text: &str) -> Vec<u8> {
    let (resolve, package) = resolve();
    wrap(text, &resolve, resolve.select_world(&[package], Some("function")).unwrap())
}

fn resolve() -> (Resolve, PackageId) {
    let mut resolve = Resolve::default();
    let package = resolve.push_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/wit")).unwrap().0;
    (resolve, package)
}

/// As [`module`], for a component that imports parts of WASI too, as toolchains' output does.
pub fn wasi_module(text: &str) -> Vec<u8> {
    let (mut resolve, _) = resolve();
    let mut push = |text: &str| resolve.push_str("test.wit", text).unwrap();
    push(
        "package wasi:clocks@0.2.12;
         interface wall-clock { record datetime { seconds: u64, nanoseconds: u32 } now: func() -> datetime; }
         interface monotonic-clock { now: func() -> u64; subscribe-instant: func(when: u64) -> u32; }",
    );
    push(
        "package wasi:random@0.2.3;
         interface random { get-random-bytes: func(len: u64) -> list<u8>; get-random-u64: func() -> u64; }
         interface insecure-seed { insecure-seed: func() -> tuple<u64, u64>; }",
    );
    push("package wasi:filesystem@0.2.0; interface types { open: func() -> u32; }");
    push(
        "package wasi:io@0.2.1;
         interface error { resource error; }
         interface streams {
           use error.{error};
           variant stream-error { last-operation-failed(error), closed }
           resource output-stream {
             check-write: func() -> result<u64, stream-error>;
             blocking-write-and-flush: func(contents: list<u8>) -> result<_, stream-error>;
           }
         }",
    );
    push(
        "package wasi:cli@0.2.1;
         interface stdout { use wasi:io/streams@0.2.1.{output-stream}; get-stdout: func() -> output-stream; }
         interface stderr { use wasi:io/streams@0.2.1.{output-stream}; get-stderr: func() -> output-stream; }
         interface environment { get-environment: func() -> list<tuple<string, string>>; }
         interface exit { exit: func(status: result); }",
    );
    let package = push(
        "package test:wasi;
         world function {
           include fleetline:functions/function@1.0.0;
           import wasi:clocks/wall-clock@0.2.12;
           import wasi:clocks/monotonic-clock@0.2.12;
           import wasi:random/random@0.2.3;
           import wasi:random/insecure-seed@0.2.3;
           import wasi:filesystem/types@0.2.0;
           import wasi:io/streams@0.2.1;
           import wasi:cli/stdout@0.2.1;
           import wasi:cli/stderr@0.2.1;
           import wasi:cli/environment@0.2.1;
           import wasi:cli/exit@0.2.1;
         }",
    );
    wrap(text, &resolve, resolve.select_world(&[package], Some("function")).unwrap())
}

fn wrap(text: &str, resolve: &Resolve, world: WorldId) -> Vec<u8> {
    let mut module = wat::parse_str(text).unwrap();
    embed_component_metadata(&mut module, resolve, world, StringEncoding::UTF8).unwrap();
    ComponentEncoder::default().module(&module).unwrap().encode().unwrap()
}

fn escaped(data: &[u8]) -> String {
    data.iter().map(|byte| format!("\\{byte:02x}")).collect()
}

/// Returns without effects.
pub const NOTHING: &str = "(call $ok (i32.const 0) (i32.const 0))";

/// Constants of a component, with the addresses that they will have.
#[derive(Default)]
pub struct Constants(pub Vec<u8>);

impl Constants {
    /// Address and size of `text`, as they stand in a string.
    pub fn text(&mut self, text: &str) -> [u32; 2] {
        let at = DATA + self.0.len() as u32;
        self.0.extend_from_slice(text.as_bytes());
        [at, text.len() as u32]
    }

    /// Address of `words`, little-endian as in memory.
    pub fn words(&mut self, words: &[u32]) -> u32 {
        self.0.resize(self.0.len().next_multiple_of(8), 0);
        let at = DATA + self.0.len() as u32;
        self.0.extend(words.iter().flat_map(|word| word.to_le_bytes()));
        at
    }
}

/// An effect takes 14 words: its case, then the largest case's 13.
const EFFECT_WORDS: usize = 14;

/// A component that returns these effects, each as words after its case's number (canonical ABI).
pub fn returning(effects: impl FnOnce(&mut Constants) -> Vec<Vec<u32>>) -> Vec<u8> {
    let mut constants = Constants::default();
    let effects = effects(&mut constants);
    let count = effects.len();
    let padded = effects.into_iter().flat_map(|mut words| {
        words.resize(EFFECT_WORDS, 0);
        words
    });
    let list = constants.words(&padded.collect::<Vec<_>>());
    component(&constants.0, &format!("(call $ok (i32.const {list}) (i32.const {count}))"))
}

/// Numbers of the cases of `effect`.
pub mod case {
    pub const REALTIME: u32 = 0;
    pub const TWIN: u32 = 2;
    pub const COMMAND: u32 = 3;
    pub const APPEND: u32 = 4;
    pub const RESPOND: u32 = 5;
}

/// A real-time message to everybody, of the binding's hub.
pub fn realtime(constants: &mut Constants, target: &str, arguments: &str) -> Vec<u32> {
    let (target, arguments) = (constants.text(target), constants.text(arguments));
    // No hub: three words.
    [&[case::REALTIME, 0, 0, 0][..], &target, &arguments, &[0]].concat()
}

/// A change of a device's desired properties.
pub fn desired(constants: &mut Constants, device: &str, patch: &str) -> Vec<u32> {
    let (device, patch) = (constants.text(device), constants.text(patch));
    [&[case::TWIN][..], &device, &[0, 0, 0], &[0], &patch].concat()
}

/// A command.
pub fn command(constants: &mut Constants, device: &str, body: &str) -> Vec<u32> {
    let (device, body) = (constants.text(device), constants.text(body));
    [&[case::COMMAND][..], &device, &body, &[0, 0], &[1, 60]].concat()
}

/// Appends for each event one with the same device and body: shows what came in.
pub fn echo() -> Vec<u8> {
    component(
        &[],
        &format!(
            r#"
      (local $list i32) (local $count i32) (local $out i32) (local $index i32) (local $to i32) (local $from i32)
      ;; batch: the trigger's case at 32, a list of events at 36 and 40
      (if (i32.ne (i32.load8_u offset=32 (local.get $batch)) (i32.const 0)) (then (unreachable)))
      (local.set $list (i32.load offset=36 (local.get $batch)))
      (local.set $count (i32.load offset=40 (local.get $batch)))
      (local.set $out (call $alloc (i32.const 0) (i32.const 0) (i32.const 8) (i32.mul (local.get $count) (i32.const 56))))
      (block $done
        (loop $next
          (br_if $done (i32.eq (local.get $index) (local.get $count)))
          (local.set $to (i32.add (local.get $out) (i32.mul (local.get $index) (i32.const 56))))
          (local.set $from (i32.add (local.get $list) (i32.mul (local.get $index) (i32.const 88))))
          (i32.store8 (local.get $to) (i32.const {append}))
          ;; device: 12 bytes of the event's head
          (memory.copy (i32.add (local.get $to) (i32.const 16)) (local.get $from) (i32.const 12))
          ;; properties: a list
          (memory.copy (i32.add (local.get $to) (i32.const 28))
                       (i32.add (local.get $from) (i32.const 48)) (i32.const 8))
          ;; content type and body: 20 bytes
          (memory.copy (i32.add (local.get $to) (i32.const 36))
                       (i32.add (local.get $from) (i32.const 64)) (i32.const 20))
          (local.set $index (i32.add (local.get $index) (i32.const 1)))
          (br $next)))
      (call $ok (local.get $out) (local.get $count))"#,
            append = case::APPEND
        ),
    )
}

/// Takes a trigger of `case` only, and gives one effect `effect` whose words are written by `fill`,
/// with `$to` as its address and `$from` as the trigger's payload.
pub fn answering(trigger: u32, effect: u32, fill: &str) -> Vec<u8> {
    component(
        &[],
        &format!(
            r#"
      (local $to i32) (local $from i32)
      (if (i32.ne (i32.load8_u offset=32 (local.get $batch)) (i32.const {trigger})) (then (unreachable)))
      (local.set $from (i32.add (local.get $batch) (i32.const 36)))
      (local.set $to (call $alloc (i32.const 0) (i32.const 0) (i32.const 8) (i32.const 56)))
      (i32.store8 (local.get $to) (i32.const {effect}))
      {fill}
      (call $ok (local.get $to) (i32.const 1))"#
        ),
    )
}
