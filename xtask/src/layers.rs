//! Who may import whom: the table in ARCHITECTURE.md, kept.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::circles;
use crate::shell::quiet;

/// Folder of a crate to the folders it imports.
type Arrows = BTreeMap<String, BTreeSet<String>>;

pub fn faults(root: &Path) -> Vec<String> {
    let table = match fs::read_to_string(root.join("ARCHITECTURE.md")) {
        Ok(text) => table(&text),
        Err(error) => return vec![format!("ARCHITECTURE.md: {error}")],
    };
    let metadata = match quiet(root, "cargo", &["metadata", "--format-version", "1", "--no-deps", "--offline"]) {
        Ok(text) => text,
        Err(error) => return vec![error],
    };
    let arrows = match serde_json::from_str::<Value>(&metadata) {
        Ok(metadata) => arrows(&metadata, root),
        Err(error) => return vec![format!("cargo metadata: {error}")],
    };
    let mut faults = compare(&table, &arrows);
    for folder in arrows.keys() {
        faults.extend(circles::faults(&root.join(folder), folder));
    }
    faults
}

/// The rows of the table whose head is `folder | purpose | may import | must not know`.
fn table(text: &str) -> Arrows {
    let mut rows = Arrows::new();
    let mut inside = false;
    for line in text.lines() {
        let cells: Vec<&str> = line.trim().trim_matches('|').split('|').map(str::trim).collect();
        if !line.trim_start().starts_with('|') {
            inside = false;
        } else if cells == ["folder", "purpose", "may import", "must not know"] {
            inside = true;
        } else if inside && cells.len() == 4 && !cells[0].starts_with("--") {
            let imports = cells[2].split(',').map(bare).filter(|word| !word.is_empty()).collect();
            rows.insert(bare(cells[0]), imports);
        }
    }
    rows
}

fn bare(cell: &str) -> String {
    cell.trim().trim_matches('`').trim_end_matches('/').to_owned()
}

/// Arrows between crates of the workspace. Those that only tests need count too, except in `sim/`, which is a test itself.
fn arrows(metadata: &Value, root: &Path) -> Arrows {
    let folder_of = |path: &str| Path::new(path).strip_prefix(root).ok().map(|path| path.to_string_lossy().into_owned());
    let mut arrows = Arrows::new();
    for package in metadata["packages"].as_array().into_iter().flatten() {
        let manifest = package["manifest_path"].as_str().unwrap_or_default();
        let Some(folder) = folder_of(manifest.trim_end_matches("/Cargo.toml")) else { continue };
        let row = arrows.entry(folder.clone()).or_default();
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            let for_tests = dependency["kind"].as_str() == Some("dev");
            let target = dependency["path"].as_str().and_then(folder_of);
            // A crate may name itself for its tests, to switch on a feature of its own.
            row.extend(target.filter(|target| !(for_tests && (folder == "sim" || *target == folder))));
        }
    }
    arrows
}

fn compare(table: &Arrows, arrows: &Arrows) -> Vec<String> {
    let mut faults = Vec::new();
    for (folder, imports) in arrows {
        let Some(allowed) = table.get(folder) else {
            faults.push(format!("the crate {folder}/ is not in the table of ARCHITECTURE.md"));
            continue;
        };
        for import in imports.difference(allowed) {
            faults.push(format!("{folder}/ imports {import}/, which its row in ARCHITECTURE.md does not allow"));
        }
    }
    for folder in table.keys().filter(|folder| !arrows.contains_key(*folder)) {
        faults.push(format!("ARCHITECTURE.md has a row for {folder}/, and there is no such crate"));
    }
    for import in table.values().flatten().filter(|import| !table.contains_key(*import)) {
        faults.push(format!("ARCHITECTURE.md allows an import of {import}, which is no row"));
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const TABLE: &str = "text\n\n| folder | purpose | may import | must not know |\n|---|---|---|---|\n\
        | `model/` | words | | all |\n| `broker/` | decides | model | sockets |\n\nmore";

    fn check(dependencies: Value) -> Vec<String> {
        let package =
            |name: &str, dependencies: Value| json!({"manifest_path": format!("/r/{name}/Cargo.toml"), "dependencies": dependencies});
        let metadata = json!({"packages": [package("model", json!([])), package("broker", dependencies)]});
        compare(&table(TABLE), &arrows(&metadata, Path::new("/r")))
    }

    #[test]
    fn what_the_table_allows_passes() {
        assert!(check(json!([{"path": "/r/model", "kind": null}, {"kind": null, "name": "bytes"}])).is_empty());
    }

    #[test]
    fn an_arrow_that_is_not_in_the_table_fails() {
        let found = check(json!([{"path": "/r/journal", "kind": null}]));
        assert_eq!(found, ["broker/ imports journal/, which its row in ARCHITECTURE.md does not allow"]);
        assert_eq!(check(json!([{"path": "/r/journal", "kind": "dev"}])).len(), 1, "tests are no way round");
    }

    #[test]
    fn crates_and_rows_must_match() {
        let metadata = json!({"packages": [{"manifest_path": "/r/model/Cargo.toml"}, {"manifest_path": "/r/extra/Cargo.toml"}]});
        let found = compare(&table(TABLE), &arrows(&metadata, Path::new("/r")));
        assert_eq!(found.len(), 2);
        assert!(found[0].contains("extra/ is not in the table") && found[1].contains("row for broker/"));
    }
}
