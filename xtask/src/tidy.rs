//! House rules that no other tool checks, over every file that git knows or would add.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use xshell::cmd;

use crate::workspace::Workspace;

/// Longest source file, in lines before its tests: beyond it, a file has more than one subject.
const SOURCE_LINES_MAX: usize = 500;

/// Beginnings of paths that exist only on somebody's own machine. Split, so that this file passes its own check.
const MACHINE_PATHS: [&str; 4] =
    [concat!("/ho", "me/"), concat!("/Us", "ers/"), concat!("/ro", "ot/"), concat!("/wo", "rk/")];

const TEXT_EXTENSIONS: [&str; 16] = [
    "rs", "py", "md", "toml", "proto", "json", "sh", "sql", "yml", "lock", "mjs", "c", "h", "cpp", "hpp",
    "in",
];

/// The one crate with `unsafe`. The workspace's lints forbid it, which nobody below can allow again: it repeats the others.
const UNSAFE_CRATE: &str = "ffi";

/// Checks all files and names every fault, not only the first.
pub(crate) fn run(workspace: &Workspace) -> Result<()> {
    let mut faults = Vec::new();
    for path in files(workspace)? {
        let Ok(text) = fs::read_to_string(workspace.root.join(&path)) else { continue };
        if is_text(&path) {
            faults.extend(text_faults(&path, &text));
        }
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("rs" | "py") => faults.extend(length_fault(&path, &text)),
            Some("md") => faults.extend(dead_links(&workspace.root, &path, &text)),
            _ => {}
        }
        if path.file_name().is_some_and(|name| name == "Cargo.toml") && path.parent() != Some(Path::new("")) {
            faults.extend(manifest_faults(&path, &text));
        }
    }
    faults.extend(undocumented_dependencies(&workspace.root)?);
    ensure!(faults.is_empty(), "house rules:\n  {}", faults.join("\n  "));
    Ok(())
}

fn files(workspace: &Workspace) -> Result<Vec<PathBuf>> {
    let list = cmd!(workspace.shell, "git ls-files --cached --others --exclude-standard").quiet().read()?;
    Ok(list.lines().map(PathBuf::from).collect())
}

fn is_text(path: &Path) -> bool {
    let extension = path.extension().and_then(|extension| extension.to_str());
    extension.is_some_and(|extension| TEXT_EXTENSIONS.contains(&extension)) || path.starts_with(".ci")
}

fn text_faults(path: &Path, text: &str) -> Vec<String> {
    let mut faults = Vec::new();
    for (number, line) in (1..).zip(text.split('\n')) {
        let place = format!("{}:{number}", path.display());
        if line.ends_with([' ', '\t', '\r']) {
            faults.push(format!("{place} ends in a blank"));
        }
        if let Some(found) = MACHINE_PATHS.iter().find(|start| line.contains(**start)) {
            faults.push(format!("{place} names a path of one machine ({found})"));
        }
    }
    if !text.is_empty() && (!text.ends_with('\n') || text.ends_with("\n\n")) {
        faults.push(format!("{} does not end with exactly one line feed", path.display()));
    }
    faults
}

/// Tests may be long: they are lists. So only what stands before them is counted.
fn length_fault(path: &Path, text: &str) -> Option<String> {
    if path.components().any(|part| part.as_os_str() == "tests") {
        return None;
    }
    let lines = text.lines().take_while(|line| *line != "#[cfg(test)]").count();
    (lines > SOURCE_LINES_MAX).then(|| format!("{} has {lines} lines before its tests", path.display()))
}

/// Links to files of ours that are not there. Links to the web are not followed.
fn dead_links(root: &Path, path: &Path, text: &str) -> Vec<String> {
    let folder = root.join(path.parent().unwrap_or(Path::new("")));
    text.split("](")
        .skip(1)
        .filter_map(|rest| rest.split([')', ' ', '\n']).next())
        .filter(|target| {
            !target.contains("://") && !target.starts_with(['#', '<']) && !target.starts_with("mailto:")
        })
        .filter_map(|target| target.split('#').next())
        .filter(|target| !folder.join(target).exists())
        .map(|target| format!("{} links to {target}, which is not there", path.display()))
        .collect()
}

/// A member that leaves the workspace's lints or version behind would do so unseen.
fn manifest_faults(path: &Path, text: &str) -> Vec<String> {
    let lints = if path.parent() == Some(Path::new(UNSAFE_CRATE)) {
        "unsafe_op_in_unsafe_fn = \"deny\""
    } else {
        "[lints]\nworkspace = true"
    };
    ["version.workspace = true", lints]
        .iter()
        .filter(|needed| !text.contains(**needed))
        .map(|needed| format!("{} lacks `{}`", path.display(), needed.replace('\n', " ")))
        .collect()
}

/// Every library we lean on is a decision, and its reason is written down.
fn undocumented_dependencies(root: &Path) -> Result<Vec<String>> {
    let manifest = fs::read_to_string(root.join("Cargo.toml"))?;
    let page = fs::read_to_string(root.join("docs/DEPENDENCIES.md"))?;
    Ok(dependency_names(&manifest)
        .filter(|name| !name.starts_with("entgldb") && !page.contains(&format!("| {name} |")))
        .map(|name| format!("docs/DEPENDENCIES.md does not say what {name} is for"))
        .collect())
}

fn dependency_names(manifest: &str) -> impl Iterator<Item = &str> {
    manifest
        .lines()
        .skip_while(|line| *line != "[workspace.dependencies]")
        .skip(1)
        .take_while(|line| !line.starts_with('['))
        .filter_map(|line| line.split_once(" = ").map(|(name, _)| name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blank_at_the_end_of_a_line_is_a_fault() {
        assert!(text_faults(Path::new("a.rs"), "fn a() {}\n").is_empty());
        assert_eq!(text_faults(Path::new("a.rs"), "fn a() {} \n"), ["a.rs:1 ends in a blank"]);
        assert_eq!(text_faults(Path::new("a.rs"), "fn a() {}\r\n").len(), 1);
    }

    #[test]
    fn a_path_of_one_machine_is_a_fault() {
        let text = format!("# see {}me/notes\n", "/ho");
        assert_eq!(text_faults(Path::new("a.py"), &text).len(), 1);
    }

    #[test]
    fn a_file_ends_with_exactly_one_line_feed() {
        assert_eq!(text_faults(Path::new("a.md"), "text").len(), 1);
        assert_eq!(text_faults(Path::new("a.md"), "text\n\n").len(), 1);
        assert!(text_faults(Path::new("a.md"), "").is_empty());
    }

    #[test]
    fn only_the_lines_before_the_tests_count() {
        let long = "x\n".repeat(SOURCE_LINES_MAX);
        assert_eq!(length_fault(Path::new("src/a.rs"), &format!("{long}#[cfg(test)]\n{long}")), None);
        assert!(length_fault(Path::new("src/a.rs"), &format!("{long}x\n")).is_some());
        assert_eq!(length_fault(Path::new("core/tests/a.rs"), &format!("{long}x\n")), None);
    }

    #[test]
    fn a_link_to_a_missing_file_is_a_fault() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let text = "[here](src/tidy.rs#top) [web](https://example.org/a.md) [gone](src/gone.rs)";
        assert_eq!(
            dead_links(root, Path::new("page.md"), text),
            ["page.md links to src/gone.rs, which is not there"]
        );
    }

    #[test]
    fn a_member_has_the_lints_and_the_version_of_the_workspace() {
        let whole = "version.workspace = true\n[lints]\nworkspace = true\n";
        assert!(manifest_faults(Path::new("a/Cargo.toml"), whole).is_empty());
        assert_eq!(manifest_faults(Path::new("a/Cargo.toml"), "version = \"1\"\n").len(), 2);
    }

    #[test]
    fn dependencies_are_read_from_their_own_section_only() {
        let manifest = "[a]\nb = 1\n[workspace.dependencies]\nc = \"1\"\n\nd = { x = 1 }\n[e]\nf = 1\n";
        assert_eq!(dependency_names(manifest).collect::<Vec<_>>(), ["c", "d"]);
    }
}
