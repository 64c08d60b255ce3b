//! Compiles `proto/worker.proto` without a system `protoc`, and keeps its descriptor for the launchers.

use std::path::PathBuf;

use prost::Message;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto/worker.proto");
    let files = protox::compile(["proto/worker.proto"], ["proto"])?;
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    // The launchers make their message classes of this at start, so that no generated code of
    // another language has to lie beside them.
    std::fs::write(out.join("worker.descriptor"), files.encode_to_vec())?;
    prost_build::Config::new().bytes(["."]).btree_map(["."]).compile_fds(files)?;
    Ok(())
}
