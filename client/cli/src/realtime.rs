//! `fleetline realtime …`: how back ends reach the realtime hubs.
//!
//! A node writes the connection string into `hub.json` of its client folder, beside those of the policies.
//! Not here: the hubs themselves (`broker/realtime`).

use clap::{Args, Subcommand};

use crate::{CliError, ContextArgs};

/// Commands on realtime hubs.
#[derive(Args, Debug)]
pub struct RealtimeArgs {
    #[command(subcommand)]
    command: RealtimeCommand,
}

/// Commands on realtime hubs.
#[derive(Subcommand, Debug)]
pub enum RealtimeCommand {
    /// Prints the connection string of the realtime hubs, for servers and bindings.
    #[command(after_help = "Example:
  export AzureSignalRConnectionString=\"$(fleetline realtime connection-string)\"
      Endpoint=…;AccessKey=…;Version=1.0; as the public server SDKs and bindings of SignalR take it, in serverless mode.

It holds the access key: whoever has it may send to every client of every hub.")]
    ConnectionString,
}

pub(crate) fn run(context: &ContextArgs, args: &RealtimeArgs) -> Result<(), CliError> {
    match args.command {
        RealtimeCommand::ConnectionString => say!("{}", connection_string(context)?),
    }
    Ok(())
}

fn connection_string(context: &ContextArgs) -> Result<String, CliError> {
    let path = context.context.join("hub.json");
    let wrong = |error: &dyn std::fmt::Display| {
        CliError::Failed(format!(
            "{}: {error}\nhint: a node writes it (`fleetline serve`); name its client folder with --context",
            path.display()
        ))
    };
    let text = std::fs::read(&path).map_err(|error| wrong(&error))?;
    let json: serde_json::Value = serde_json::from_slice(&text).map_err(|error| wrong(&error))?;
    let found = json["realtime"].as_str().map(str::to_owned);
    found.ok_or_else(|| wrong(&"it names no realtime hubs; has the node just begun to start?"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The string is printed as it is; without one it is said where it should be.
    #[test]
    fn strings() {
        let folder = tempfile::tempdir().unwrap();
        let context = ContextArgs { context: folder.path().to_owned() };
        let error = connection_string(&context).unwrap_err().to_string();
        assert!(error.contains("hub.json") && error.contains("--context"), "{error}");
        let string = "Endpoint=https://localhost;Port=8443;AccessKey=a2V5;Version=1.0;";
        let json = serde_json::json!({ "realtime": string });
        std::fs::write(folder.path().join("hub.json"), json.to_string()).unwrap();
        assert_eq!(connection_string(&context).unwrap(), string);
        std::fs::write(folder.path().join("hub.json"), "{}").unwrap();
        assert!(connection_string(&context).is_err());
    }
}
