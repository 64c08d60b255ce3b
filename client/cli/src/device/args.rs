//! The arguments of commands on devices, and what makes no sense there.
//!
//! Names, keys and numbers are checked before anything is sent, by the rules that the hub has too.

use std::path::PathBuf;

use clap::{ArgGroup, Args, Subcommand, ValueEnum};
use fleetline_client::model::ReadFrom;
use fleetline_iothub::names::{check_device_id, check_message_id, check_method_name, check_module_id};
use fleetline_iothub::sas::SasKey;

use super::talk;
use crate::hub::HubArgs;
use crate::time::read_from;

/// A device to make.
#[derive(Args, Debug)]
#[command(group = ArgGroup::new("proof").args(["key", "thumbprint", "ca"]))]
pub struct CreateArgs {
    /// The device: 1 to 128 letters, digits and - : . + % _ # * ? ! ( ) , = @ ; $ '
    #[arg(value_parser = device_id)]
    pub(super) id: String,
    /// Its primary key; without it the hub makes one.
    #[arg(long, value_parser = key, value_name = "BASE64")]
    pub(super) key: Option<String>,
    /// It proves itself with the certificate of this SHA-1 or SHA-256 thumbprint instead.
    #[arg(long, value_parser = thumbprint, value_name = "HEX")]
    pub(super) thumbprint: Option<String>,
    /// It proves itself with a certificate of a known authority instead.
    #[arg(long)]
    pub(super) ca: bool,
    /// It is an IoT Edge gateway.
    #[arg(long)]
    pub(super) edge: bool,
    /// It may not connect yet.
    #[arg(long)]
    pub(super) disabled: bool,
}

/// What to list.
#[derive(Args, Debug)]
pub struct ListArgs {
    /// A query in the language of IoT Hub.
    #[arg(long, default_value = "SELECT * FROM devices", value_name = "TEXT")]
    pub(super) query: String,
    /// Print one JSON object a row: the twins.
    #[arg(long)]
    pub(super) json: bool,
}

/// What to change of a device.
#[derive(Args, Debug)]
#[command(group = ArgGroup::new("change").required(true).multiple(true).args(["enable", "disable", "roll_key"]))]
pub struct UpdateArgs {
    /// The device.
    #[arg(value_parser = device_id)]
    pub(super) id: String,
    /// It may connect.
    #[arg(long, conflicts_with = "disable")]
    pub(super) enable: bool,
    /// It may not connect.
    #[arg(long)]
    pub(super) disable: bool,
    /// It gets a new primary key; the present one becomes the secondary key.
    #[arg(long)]
    pub(super) roll_key: bool,
    /// Why, for whoever looks at it later; at most 128 characters.
    #[arg(long, value_name = "TEXT")]
    pub(super) reason: Option<String>,
}

/// A twin, and what to change of it.
#[derive(Args, Debug)]
#[command(group = ArgGroup::new("part").multiple(true).args(["desired", "tags"]))]
pub struct TwinArgs {
    /// The device.
    #[arg(value_parser = device_id)]
    pub(super) id: String,
    /// The twin of this module of it.
    #[arg(long, value_parser = module_id, value_name = "M")]
    pub(super) module: Option<String>,
    /// Desired properties: a JSON object, or @FILE.
    #[arg(long, value_name = "JSON")]
    pub(super) desired: Option<String>,
    /// Tags: a JSON object, or @FILE.
    #[arg(long, value_name = "JSON")]
    pub(super) tags: Option<String>,
    /// Replace the parts that are given instead of merging them.
    #[arg(long, requires = "part")]
    pub(super) replace: bool,
    /// Only if the twin still has this etag.
    #[arg(long, requires = "part", value_name = "E")]
    pub(super) etag: Option<String>,
}

/// A method to call.
#[derive(Args, Debug)]
pub struct InvokeArgs {
    /// The device.
    #[arg(value_parser = device_id)]
    pub(super) id: String,
    /// The method.
    #[arg(value_parser = method_name)]
    pub(super) method: String,
    /// What the method gets: JSON, or @FILE; null without it.
    pub(super) payload: Option<String>,
    /// The method of this module of it.
    #[arg(long, value_parser = module_id, value_name = "M")]
    pub(super) module: Option<String>,
    /// Seconds that the device has for its answer: 5 to 300.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(5..=300), value_name = "S")]
    pub(super) timeout: u32,
    /// Seconds to wait for a device that is not connected: 0 to 300.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=300), value_name = "S")]
    pub(super) connect_timeout: u32,
}

/// A message to leave.
#[derive(Args, Debug)]
pub struct SendArgs {
    /// The device.
    #[arg(value_parser = device_id)]
    pub(super) id: String,
    /// The message's text.
    #[arg(conflicts_with = "file", required_unless_present = "file")]
    pub(super) body: Option<String>,
    /// The message's bytes: a file, or - for standard input.
    #[arg(long, value_name = "F")]
    pub(super) file: Option<PathBuf>,
    /// To this module of it.
    #[arg(long, value_parser = module_id, value_name = "M")]
    pub(super) module: Option<String>,
    /// An application property; may be given again.
    #[arg(long, value_parser = property, value_name = "K=V")]
    pub(super) property: Vec<(String, String)>,
    /// The message's id; without it the hub makes one.
    #[arg(long, value_parser = message_id, value_name = "X")]
    pub(super) message_id: Option<String>,
    /// Media type of the body.
    #[arg(long, value_name = "TYPE")]
    pub(super) content_type: Option<String>,
    /// Which ends of the message the hub keeps feedback of.
    #[arg(long, default_value = "none")]
    pub(super) ack: Ack,
    /// Seconds until nobody wants it any more; without it the hub's default, one hour.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..), value_name = "S")]
    pub(super) expires: Option<u64>,
}

/// Which ends of a message are told to services.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Ack {
    /// None.
    None,
    /// That the device has taken it.
    Positive,
    /// That it expired, or was given up.
    Negative,
    /// Both.
    Full,
}

/// What to watch.
#[derive(Args, Debug)]
pub struct MonitorArgs {
    /// Only this device.
    #[arg(value_parser = device_id)]
    pub(super) id: Option<String>,
    /// Where to begin: earliest, latest, offset:N, time:RFC3339 or time:-10m.
    #[arg(long, default_value = "latest", value_parser = read_from)]
    pub(super) from: ReadFrom,
    /// Also the hub's own events.
    #[arg(long)]
    pub(super) events: bool,
    /// Print one JSON object a record.
    #[arg(long)]
    pub(super) json: bool,
    /// Stop after so many records.
    #[arg(long, value_name = "N")]
    pub(super) max: Option<u64>,
}

/// Commands on the modules of a device.
#[derive(Subcommand, Debug)]
pub enum ModulesCommand {
    /// Lists them.
    List {
        /// Print JSON, with keys, as the hub gives it.
        #[arg(long)]
        json: bool,
    },
    /// Makes one, and prints its connection string.
    Create {
        /// The module.
        #[arg(value_parser = module_id)]
        module: String,
    },
    /// Removes one.
    Delete {
        /// The module.
        #[arg(value_parser = module_id)]
        module: String,
    },
}

/// A device to play.
#[derive(Args, Debug)]
pub struct SimulateArgs {
    /// The device; it exists and has a key.
    #[arg(value_parser = device_id)]
    pub(super) id: String,
    /// Milliseconds between two messages.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..), value_name = "MS")]
    pub(super) every: u64,
    /// Stop after so many messages.
    #[arg(long, value_name = "N")]
    pub(super) count: Option<u64>,
}

/// Which connection string to print.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  fleetline connection-string
      For services and tools: az iot hub …, or FLEETLINE_HUB_CONNECTION_STRING on another machine.
  fleetline connection-string --policy service
  fleetline connection-string --device thermostat-7
      For the device itself.")]
pub struct ConnectionStringArgs {
    /// Of this device, which is asked for.
    #[arg(long, value_parser = device_id, value_name = "ID")]
    pub(crate) device: Option<String>,
    /// Of this module of the device.
    #[arg(long, requires = "device", value_parser = module_id, value_name = "M")]
    pub(crate) module: Option<String>,
    // Last: what follows would stand under its heading.
    #[command(flatten)]
    pub(crate) hub: HubArgs,
}

pub(super) fn device_id(text: &str) -> Result<String, String> {
    check_device_id(text).map(|()| text.to_owned()).map_err(|error| error.to_string())
}

fn module_id(text: &str) -> Result<String, String> {
    check_module_id(text).map(|()| text.to_owned()).map_err(|error| error.to_string())
}

fn message_id(text: &str) -> Result<String, String> {
    check_message_id(text).map(|()| text.to_owned()).map_err(|error| error.to_string())
}

fn method_name(text: &str) -> Result<String, String> {
    check_method_name(text).map(|()| text.to_owned()).map_err(|error| error.to_string())
}

fn key(text: &str) -> Result<String, String> {
    SasKey::from_base64(text).map(|_| text.trim().to_owned()).map_err(|error| error.to_string())
}

/// SHA-1 is 40 hex digits, SHA-256 64; colons and spaces between them mean nothing.
fn thumbprint(text: &str) -> Result<String, String> {
    let digits: String = text.chars().filter(|c| *c != ':' && !c.is_whitespace()).collect();
    let is_hex = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    match is_hex && matches!(digits.len(), 40 | 64) {
        true => Ok(digits.to_ascii_uppercase()),
        false => Err("a thumbprint has 40 (SHA-1) or 64 (SHA-256) hex digits".to_owned()),
    }
}

fn property(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("write it like name=value")?;
    if name.bytes().any(|byte| byte.is_ascii_uppercase()) {
        let lower = name.to_ascii_lowercase();
        return Err(format!("names travel as HTTP headers, which have no case: write {lower}"));
    }
    talk::property_header(name).map(|_| (name.to_owned(), value.to_owned()))
}

/// Arguments of a command, parsed from words.
#[cfg(test)]
pub(super) fn parsed<A: Args>(words: &[&str]) -> A {
    let command = A::augment_args(clap::Command::new("test").no_binary_name(true));
    A::from_arg_matches(&command.get_matches_from(words)).unwrap()
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::super::DeviceCommand;
    use crate::ContextArgs;

    #[derive(Parser, Debug)]
    struct Tool {
        #[command(flatten)]
        context: ContextArgs,
        #[command(subcommand)]
        command: crate::HubCommand,
    }

    /// Parses a command line of words; words with spaces stand between bars.
    fn parse(line: &str) -> Result<DeviceCommand, String> {
        let words = line.split('|').enumerate().flat_map(|(index, part)| match index % 2 {
            0 => part.split_whitespace().map(str::to_owned).collect::<Vec<_>>(),
            _ => vec![part.to_owned()],
        });
        let words = ["fleetline".to_owned(), "device".to_owned()].into_iter().chain(words);
        match Tool::try_parse_from(words).map_err(|error| error.to_string())?.command {
            crate::HubCommand::Device(args) => Ok(args.command),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_definition_is_sound() {
        Tool::command().debug_assert();
    }

    #[test]
    fn good_lines() {
        for line in [
            "create d",
            "create d --key a2V5 --edge --disabled",
            "create d --thumbprint AA:bb:CC:dd:EE:ff:00:11:22:33:44:55:66:77:88:99:AA:BB:CC:DD",
            "create d --ca --https :8443 --policy registryReadWrite",
            "--https :8443 list",
            "list --query |SELECT * FROM devices| --json",
            "show d --json",
            "update d --enable",
            "update d --disable --roll-key --reason |it was stolen|",
            "delete a b c",
            "twin d",
            "twin d --desired {} --tags {} --replace --etag AAAAAAAAAAE=",
            "invoke d reboot",
            "invoke d reboot |{\"a\": 1}| --timeout 5 --connect-timeout 300 --module m",
            "send d hello --ack full --expires 60 --property a=b --property c= --message-id 1",
            "send d --file -",
            "monitor",
            "monitor d --events --json --max 3 --from time:-5m",
            "modules d list --json",
            "modules d create m",
            "modules d delete m --https h:1",
            "simulate d --every 10 --count 3",
        ] {
            parse(line).unwrap_or_else(|error| panic!("{line}: {error}"));
        }
        let Ok(DeviceCommand::Send(args)) = parse("send d hello --property a=b=c") else { panic!() };
        assert_eq!(args.property, [("a".to_owned(), "b=c".to_owned())]);
        let Ok(DeviceCommand::Create(args)) =
            parse("create d --thumbprint |aa bb cc dd ee ff 00 11 22 33 44 55 66 77 88 99 aa bb cc dd|")
        else {
            panic!()
        };
        assert_eq!(args.thumbprint.as_deref(), Some("AABBCCDDEEFF00112233445566778899AABBCCDD"));
    }

    /// What makes no sense is refused here, with a word on why, and never reaches the hub.
    #[test]
    fn bad_lines() {
        for (line, part) in [
            ("create", "<ID>"),
            ("create a/b", "'/', which is not allowed"),
            ("create d --key ***", "key is not base64"),
            ("create d --thumbprint AABB", "40 (SHA-1) or 64"),
            ("create d --ca --key a2V5", "cannot be used with"),
            ("update d", "--roll-key"),
            ("update d --enable --disable", "cannot be used with"),
            ("delete", "<ID>"),
            ("twin d --replace", "--desired"),
            ("twin d --etag x", "--desired"),
            ("invoke d |a b|", "method name contains ' '"),
            ("invoke d m --timeout 4", "not in 5..=300"),
            ("invoke d m --connect-timeout 301", "not in 0..=300"),
            ("send d", "<BODY"),
            ("send d hello --file f", "cannot be used with"),
            ("send d hello --property a", "name=value"),
            ("send d hello --property Level=1", "write level"),
            ("send d hello --property |a b=1|", "no name"),
            ("send d hello --ack maybe", "[possible values: none, positive, negative, full]"),
            ("send d hello --expires 0", "0"),
            ("monitor --from yesterday", "use earliest"),
            ("modules d", "create"),
            ("simulate d --every 0", "0"),
        ] {
            let error = parse(line).map(|command| format!("{command:?}")).unwrap_err();
            assert!(error.contains(part), "{line}: {error}");
        }
    }
}
