//! `fleetline device …`: identities, twins, methods, messages, and what devices send.
//!
//! All but `monitor` is a request to the hub's REST interface, as any service makes it; `monitor` reads the
//! stream. Here are the commands; their arguments are in `args`, and each other file does what its name says.

mod args;
mod identity;
mod list;
mod monitor;
mod simulate;
mod talk;
mod twin;

use clap::{Args, Subcommand};

use crate::hub::HubArgs;
use crate::rest::Rest;
use crate::{CliError, ContextArgs};

pub use args::{
    Ack, ConnectionStringArgs, CreateArgs, InvokeArgs, ListArgs, ModulesCommand, MonitorArgs, SendArgs,
    SimulateArgs, TwinArgs, UpdateArgs,
};
pub(crate) use identity::connection_string;

use args::device_id;
#[cfg(test)]
use args::parsed;

/// Commands on devices, and the hub that they go to.
#[derive(Args, Debug)]
pub struct DeviceArgs {
    #[command(flatten)]
    hub: HubArgs,
    #[command(subcommand)]
    command: DeviceCommand,
}

/// Commands on devices.
#[derive(Subcommand, Debug)]
pub enum DeviceCommand {
    /// Makes a device, and prints the connection string that it needs.
    #[command(after_help = "Examples:
  fleetline device create thermostat-7
      The hub makes a key; the connection string goes into any Azure IoT device SDK.
  fleetline device create thermostat-7 --thumbprint \"$(openssl x509 -in d.pem -noout -fingerprint -sha256 | cut -d= -f2)\"
      The device shows this very certificate.
  fleetline device create thermostat-7 --ca
      The device shows a certificate of an authority that the hub knows, with thermostat-7 as its common name.")]
    Create(CreateArgs),
    /// Lists devices, or what a query finds.
    #[command(after_help = "Examples:
  fleetline device list
  fleetline device list --query \"SELECT * FROM devices WHERE tags.building = '43'\"
  fleetline device list --query \"SELECT * FROM devices WHERE connectionState = 'Connected'\"
  fleetline device list --json | jq -r .deviceId")]
    List(ListArgs),
    /// Shows a device of the registry.
    #[command(after_help = "Examples:
  fleetline device show thermostat-7
  fleetline device show thermostat-7 --json      With its keys.")]
    Show {
        /// The device.
        #[arg(value_parser = device_id)]
        id: String,
        /// Print JSON, with keys, as the hub gives it.
        #[arg(long)]
        json: bool,
    },
    /// Lets a device in, keeps it out, or gives it a new key.
    #[command(after_help = "Examples:
  fleetline device update thermostat-7 --disable --reason \"stolen\"
      Its connection ends at once.
  fleetline device update thermostat-7 --roll-key
      The present primary key becomes the secondary one, so the device stays connected until it has the new
      connection string, which is printed.")]
    Update(UpdateArgs),
    /// Removes devices with all that is theirs: modules, twin, waiting messages.
    #[command(after_help = "Example: fleetline device delete thermostat-7 thermostat-8")]
    Delete {
        /// The devices.
        #[arg(required = true, value_parser = device_id, value_name = "ID")]
        ids: Vec<String>,
    },
    /// Prints a twin; with --desired or --tags it is changed first.
    #[command(after_help = "Examples:
  fleetline device twin thermostat-7
  fleetline device twin thermostat-7 --desired '{\"interval\": 10}' --tags '{\"building\": \"43\"}'
      Merges: null removes a property, what isn't named stays. The device hears of desired properties at once.
  fleetline device twin thermostat-7 --desired @desired.json --replace
      All desired properties become those of the file.
  fleetline device twin thermostat-7 --tags '{\"floor\": 2}' --etag AAAAAAAAAAE=
      Only if nobody has changed the twin since it had this etag.")]
    Twin(TwinArgs),
    /// Calls a method of a connected device, and prints its answer.
    #[command(after_help = "Examples:
  fleetline device invoke thermostat-7 reboot
  fleetline device invoke thermostat-7 setPoint '{\"celsius\": 21}' --timeout 10 --connect-timeout 60
      Waits up to a minute for the device to connect, and then ten seconds for its answer.

The status is the device's own word; the command succeeds whenever the device has answered.")]
    Invoke(InvokeArgs),
    /// Leaves a device a message; it gets it when it connects.
    #[command(after_help = "Examples:
  fleetline device send thermostat-7 'time for a service'
  fleetline device send thermostat-7 --file firmware.json --property kind=firmware --expires 3600 --ack full
  date | fleetline device send thermostat-7 --file -

Names of properties travel as HTTP headers, so they are in lower case.")]
    Send(SendArgs),
    /// Prints what devices send, as it arrives.
    #[command(after_help = "Examples:
  fleetline device monitor
  fleetline device monitor thermostat-7 --from time:-10m
  fleetline device monitor --events --json | jq .properties
      Also what the hub itself says: devices made, connected, twins changed.

Reads the stream as a client of the cluster: it needs the context folder's certificate, not a policy.")]
    Monitor(MonitorArgs),
    /// Lists, makes and removes the modules of a device.
    #[command(after_help = "Examples:
  fleetline device modules thermostat-7 list
  fleetline device modules thermostat-7 create camera      Prints the module's connection string.
  fleetline device modules thermostat-7 delete camera")]
    Modules {
        /// The device.
        #[arg(value_parser = device_id)]
        id: String,
        /// What to do.
        #[command(subcommand)]
        command: ModulesCommand,
    },
    /// Sends made-up telemetry as a device, to try things.
    #[command(after_help = "Example, in two terminals:
  fleetline device monitor
  fleetline device create thermostat-7; fleetline device simulate thermostat-7 --every 500")]
    Simulate(SimulateArgs),
}

pub(crate) async fn run(context: &ContextArgs, args: DeviceArgs) -> Result<(), CliError> {
    let rest = || args.hub.find(context).map(Rest::new);
    match args.command {
        DeviceCommand::Create(args) => say!("{}", identity::create(&mut rest()?, &args).await?),
        DeviceCommand::List(args) => list::run(&mut rest()?, &args, &mut |line| say!("{line}")).await?,
        DeviceCommand::Show { id, json } => say!("{}", identity::show(&mut rest()?, &id, json).await?),
        DeviceCommand::Update(args) => say!("{}", identity::update(&mut rest()?, &args).await?),
        DeviceCommand::Delete { ids } => {
            let mut rest = rest()?;
            for id in ids {
                say!("{}", identity::delete(&mut rest, &id, None).await?);
            }
        }
        DeviceCommand::Twin(args) => say!("{:#}", twin::run(&mut rest()?, &args).await?),
        DeviceCommand::Invoke(args) => say!("{:#}", talk::invoke(&mut rest()?, &args).await?),
        DeviceCommand::Send(args) => say!("{}", talk::send(&mut rest()?, &args).await?),
        DeviceCommand::Monitor(args) => monitor::run(context, &args).await?,
        DeviceCommand::Modules { id, command } => {
            say!("{}", identity::modules(&mut rest()?, &id, command).await?);
        }
        DeviceCommand::Simulate(args) => {
            simulate::run(&mut rest()?, &args, &mut |line| say!("{line}")).await?
        }
    }
    Ok(())
}

/// The place of a device or module below `root`.
fn place<'a>(root: &'a str, device: &'a str, module: Option<&'a str>) -> Vec<&'a str> {
    let mut segments = vec![root, device];
    segments.extend(module.iter().flat_map(|module| ["modules", module]));
    segments
}

/// A JSON argument: the text itself, or `@FILE`.
fn json_argument(what: &str, text: &str) -> Result<serde_json::Value, CliError> {
    let text = match text.strip_prefix('@') {
        Some(path) => std::fs::read_to_string(path)
            .map_err(|error| CliError::Failed(format!("{what}: {path} can't be read: {error}")))?,
        None => text.to_owned(),
    };
    serde_json::from_str(&text).map_err(|error| {
        CliError::Usage(format!(
            "{what} is not JSON: {error}\nhint: in a shell, '{{\"a\": 1}}' or '\"text\"'; @FILE reads a file"
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// JSON comes from the argument or a file, and a shell's mistakes are told.
    #[test]
    fn json_arguments() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "{\"a\": [1]}").unwrap();
        let named = format!("@{}", file.path().display());
        assert_eq!(json_argument("x", &named).unwrap(), serde_json::json!({"a": [1]}));
        assert_eq!(json_argument("x", "null").unwrap(), serde_json::Value::Null);
        let error = json_argument("payload", "{a: 1}").unwrap_err();
        assert_eq!(error.exit_code(), 2);
        assert!(error.to_string().starts_with("payload is not JSON"), "{error}");
        assert!(json_argument("x", "@/gone.json").unwrap_err().to_string().contains("/gone.json"));
    }
}
