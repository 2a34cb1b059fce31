//! The `firth` program: serve, verify, backup, restore, repair.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, CommandFactory, Parser, Subcommand};

use firth_server::config::{Config, Values};
use firth_server::verify::Verdict;

/// Exit code for a configuration that is wrong, as in sysexits.h.
const BAD_CONFIG: u8 = 78;

/// An event streaming platform in one binary: one durable log that every Kafka client can use.
#[derive(Parser)]
#[command(name = "firth", version, args_conflicts_with_subcommands = true, after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    verb: Option<Verb>,
    #[command(flatten)]
    serve: Serve,
}

const EXAMPLES: &str = "Examples:
  firth                                        serve Kafka on 127.0.0.1:9092, data in ./firth-data
  firth serve --data /var/lib/firth            the same, data elsewhere
  firth serve --listen kafka=127.0.0.1:0 --ready-file ready.json
                                               any free port, told in a file
  firth verify --data /var/lib/firth           check every checksum while it is stopped
  firth backup --data /var/lib/firth --to /mnt/monday
                                               copy it while it runs";

const BACKUP: &str = "Example:
  firth backup --data /var/lib/firth --to /mnt/backup/monday

Settings such as archive.url are taken as `firth serve` takes them.";

const VERIFY: &str = "Example:
  firth verify --data /var/lib/firth

Exit code 0: sound, 1: damaged. Settings such as archive.url are taken as `firth serve` takes them.";

const REPAIR: &str = "Examples:
  firth repair --data /var/lib/firth                  what would be given up; changes nothing
  firth repair --data /var/lib/firth --accept-loss    gives it up

Exit code 0: nothing is damaged, or repaired; 1: damaged.";

#[derive(Subcommand)]
enum Verb {
    /// Serve until SIGTERM (the default verb)
    #[command(after_help = EXAMPLES)]
    Serve(Serve),
    /// Check every checksum and the chain of a stopped node
    #[command(after_help = VERIFY)]
    Verify(Serve),
    /// Copy a node, which may be running and busy, as it was at one moment
    #[command(after_help = BACKUP)]
    Backup {
        #[command(flatten)]
        serve: Serve,
        /// Directory to make; it must be empty or missing
        #[arg(long, value_name = "DIR")]
        to: PathBuf,
    },
    /// Put a backup into an empty data directory
    #[command(after_help = "Example:\n  firth restore --from /mnt/backup/monday --data /var/lib/firth")]
    Restore {
        #[arg(long, value_name = "DIR")]
        from: PathBuf,
        /// Data directory; it must be empty or missing
        #[arg(long, value_name = "DIR")]
        data: PathBuf,
    },
    /// Say what a damaged node must give up to start again; with --accept-loss, give it up
    #[command(after_help = REPAIR)]
    Repair {
        #[command(flatten)]
        serve: Serve,
        /// Give up what cannot be read; the originals are kept in DIR/given-up
        #[arg(long)]
        accept_loss: bool,
    },
    /// List every setting with its default
    #[command(after_help = "Example:\n  firth settings")]
    Settings,
    /// Print the completions of a shell
    #[command(after_help = "Example:\n  firth completions bash > /etc/bash_completion.d/firth")]
    Completions { shell: clap_complete::Shell },
}

#[derive(Args)]
struct Serve {
    /// Directory that holds everything [default: firth-data]
    #[arg(long, value_name = "DIR")]
    data: Option<String>,
    /// Listener to start, as kafka=127.0.0.1:9092; when given, only the named ones start
    #[arg(long, value_name = "PROTOCOL=ADDR:PORT")]
    listen: Vec<String>,
    /// Address told to clients, as kafka=HOST:PORT [default: the one each client connected to]
    #[arg(long, value_name = "PROTOCOL=HOST:PORT")]
    advertise: Vec<String>,
    /// File to write, atomically, when all listeners accept
    #[arg(long, value_name = "PATH")]
    ready_file: Option<String>,
    /// Configuration file
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Any setting by its name (see `firth settings`)
    #[arg(long = "set", value_name = "NAME=VALUE")]
    set: Vec<String>,
    /// Listen beyond loopback although there is no sign-in yet
    #[arg(long)]
    allow_insecure: bool,
}

impl Serve {
    fn config(&self) -> Result<Config> {
        let mut values = Values::default();
        let mut flags: Vec<(&str, &str)> = Vec::new();
        flags.extend(self.data.as_deref().map(|data| ("data", data)));
        flags.extend(self.ready_file.as_deref().map(|path| ("ready_file", path)));
        if self.allow_insecure {
            flags.push(("allow_insecure", "true"));
        }
        for advertise in &self.advertise {
            match advertise.split_once('=') {
                Some(("kafka", address)) => flags.push(("kafka.advertise", address)),
                _ => anyhow::bail!("--advertise {advertise}: kafka=HOST:PORT is expected"),
            }
        }
        for set in &self.set {
            let pair = set.split_once('=').ok_or_else(|| anyhow::anyhow!("--set {set}: NAME=VALUE is expected"))?;
            flags.push(pair);
        }
        values.flags(flags)?;
        values.environment(std::env::vars())?;
        if let Some(path) = &self.config {
            values.file(path)?;
        }
        Config::from_values(&values, &self.listen)
    }
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match cli.verb.unwrap_or(Verb::Serve(cli.serve)) {
        Verb::Serve(serve) => serve_until_stopped(&serve),
        Verb::Backup { serve, to } => tell(serve.config().and_then(|config| firth_server::backup::backup(&config, &to))),
        Verb::Restore { from, data } => tell(firth_server::backup::restore(&from, &data)),
        Verb::Verify(serve) => judge(serve.config().and_then(|config| firth_server::verify::verify_node(&config))),
        Verb::Repair { serve, accept_loss } => judge(serve.config().and_then(|config| firth_server::repair::repair(&config, accept_loss))),
        Verb::Settings => {
            print(&firth_server::config::describe());
            ExitCode::SUCCESS
        }
        Verb::Completions { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "firth", &mut std::io::stdout());
            ExitCode::SUCCESS
        }
    }
}

fn serve_until_stopped(serve: &Serve) -> ExitCode {
    let config = match serve.config() {
        Ok(config) => config,
        Err(error) => return fail(&error, BAD_CONFIG),
    };
    let filter = tracing_subscriber::EnvFilter::try_new(&config.log);
    let filter = match filter {
        Ok(filter) => filter,
        Err(error) => return fail(&anyhow::Error::new(error).context("log"), BAD_CONFIG),
    };
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    match firth_server::run::run(&config, print) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error, 1),
    }
}

fn tell(outcome: Result<String>) -> ExitCode {
    match outcome {
        Ok(text) => {
            print(&text);
            ExitCode::SUCCESS
        }
        Err(error) => fail(&error, 1),
    }
}

fn judge(verdict: Result<Verdict>) -> ExitCode {
    match verdict {
        Ok(verdict) => {
            print(&verdict.text);
            if verdict.sound { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => fail(&error, 1),
    }
}

/// Writes to standard output; a reader that went away is no reason to stop.
fn print(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

fn fail(error: &anyhow::Error, code: u8) -> ExitCode {
    eprintln!("firth: {error:#}");
    ExitCode::from(code)
}
