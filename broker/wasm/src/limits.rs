//! Every bound of WASM functions that isn't an option, with its reason.

/// Bytes of a component. A JavaScript engine takes 12 MiB; more than this is a mistake, and compiling
/// it would take minutes.
pub const COMPONENT_BYTES_MAX: u64 = 64 << 20;
/// Bytes of a `function.json`; real ones have a few hundred.
pub const FUNCTION_JSON_BYTES_MAX: u64 = 1 << 20;
/// Functions of one app.
pub const FUNCTIONS_MAX: usize = 200;
/// Effects of one invocation: a batch has 100 events by default, so ten for each.
pub const EFFECTS_MAX: usize = 1000;
/// Bytes that a component may hand over in one call of the node, or as the result of its own: what a
/// partition takes in one entry, with room. More than the bytes in the component's memory can come
/// over, because lists may overlap there, so this is what bounds them.
pub const HANDED_OVER_BYTES_MAX: usize = 8 << 20;
/// Lines that one invocation may log; those after it are counted.
pub const LOG_LINES_MAX: usize = 1000;
/// Bytes of one line of a function's log.
pub const LOG_LINE_BYTES_MAX: usize = 8 << 10;
/// Keys in the state of one function and partition.
pub const STATE_KEYS_MAX: usize = 64;
/// Bytes of a key of state.
pub const STATE_KEY_BYTES_MAX: usize = 256;
/// Bytes of a value of state.
pub const STATE_VALUE_BYTES_MAX: usize = 64 << 10;
/// Bytes of a failure's message, and of its stack.
pub const MESSAGE_BYTES_MAX: usize = 8 << 10;
/// Random bytes that a component gets in one call.
pub const RANDOM_BYTES_MAX: u64 = 64 << 10;
/// Elements of a component's table of functions. JavaScript engines have 10,000.
pub(crate) const TABLE_ELEMENTS_MAX: usize = 100_000;
/// Core modules, memories and tables of one component. Tools make three to six modules around the one
/// that was written, and give one of them a memory.
pub(crate) const MODULES_MAX: u32 = 16;
/// As above, memories.
pub(crate) const MEMORIES_MAX: u32 = 2;
/// As above, tables.
pub(crate) const TABLES_MAX: u32 = 16;
/// Bytes of stack that a component may use. The threads that run it have 2 MiB.
pub(crate) const STACK_BYTES_MAX: usize = 1 << 20;
/// Bytes of a memory that stay with its slot between instances: pages that were written are written back,
/// not unmapped. A JavaScript component takes 0.65 instead of 1.16 ms a batch with it, and the node
/// `running_max` times this.
pub(crate) const KEPT_RESIDENT_BYTES: usize = 2 << 20;
/// Compiled components in the cache; the oldest make room.
pub(crate) const CACHE_ENTRIES_MAX: usize = 64;
/// Bytes of a compiled component: code is several times as large as the component.
pub(crate) const CACHE_ENTRY_BYTES_MAX: u64 = 512 << 20;

/// Cuts `text` to at most `max` bytes, between two characters.
pub(crate) fn cut(mut text: String, max: usize) -> String {
    if text.len() > max {
        text.truncate(text.floor_char_boundary(max));
        text.push('…');
    }
    text
}
