//! The engine's files, and which of them names what of which: imports go down its layers, and no three files in a circle.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use syn::{Attribute, Item, Path as RustPath, UseTree, visit::Visit};

use crate::{assert_none, sources};

const ENGINE: &str = "grizzly-provider/src/engine/";

/// From the bottom up. A file may name what is in its own layer and below. A name stands for a file or a folder, and the
/// longest one counts.
const LAYERS: &[(&str, &[&str])] = &[
    (
        "formats and structures, which know of no database",
        &[
            "alone/grounded",
            "backup/unfinished",
            "catalog",
            "clock",
            "cluster/news",
            "consent",
            "errors",
            "index",
            "key",
            "label",
            "maintenance/signals",
            "maintenance/tombstone_file",
            "mvcc",
            "redo_rows",
            "segment",
            "settings",
            "shard",
            "stamps",
            "txn/moved",
            "txn/outcome",
        ],
    ),
    (
        "versions of a database, and what a record makes of one",
        &[
            "files",
            "lookup",
            "made",
            "maintenance/checkpoints",
            "maintenance/hot_rows",
            "maintenance/left_over",
            "manifest",
            "planning",
            "redo",
            "replica",
            "rows",
            "scan",
            "snapshot",
            "statistics",
            "txn/conflict",
            "txn/order",
            "txn/publish",
            "version",
        ],
    ),
    (
        "what keeps several processes apart",
        &["alone/epoch", "backup/pins", "cluster/following", "cluster/lease", "cluster/member"],
    ),
    ("the open database", &["core"]),
    (
        "what is done with it, whether it may be written or not",
        &[
            "activity",
            "backup",
            "bulk",
            "cluster/follow",
            "extension",
            "maintenance/choice",
            "maintenance/collect",
            "maintenance/room",
            "nodes",
            "txn/writes",
            "verify",
        ],
    ),
    ("beginning to write: recovery", &["alone/begin", "cluster/promote", "recovery"]),
    ("changes", &["close", "ddl", "maintenance", "txn"]),
    ("opening", &["alone", "cluster", "open"]),
    ("its public face", &["backup/restore", "database"]),
];

/// Types whose methods are in several layers, each in that of what it does.
const FACES: [&str; 2] = ["Grizzly", "Backups"];

/// A path as it is seen from the root of the engine.
type Names = Vec<String>;

/// The files of the engine by their modules.
struct Engine {
    modules: BTreeMap<Names, Module>,
}

#[derive(Default)]
struct Module {
    file: String,
    /// What `use` gives a name here, for this module and those below it.
    imported: HashMap<String, Names>,
    /// All that is named, but for what is only passed on.
    named: BTreeSet<Names>,
    /// What is passed on.
    passed_on: BTreeSet<Names>,
    /// The modules below it.
    children: BTreeSet<String>,
    /// Types that it gives methods.
    extended: BTreeSet<Names>,
    /// Imports of everything, which say nothing of what is needed.
    globs: Vec<String>,
}

impl Engine {
    fn read() -> Self {
        let mut modules = BTreeMap::new();
        for (file, text) in sources() {
            let Some(inner) = file.strip_prefix(ENGINE).filter(|inner| !is_test(inner)) else { continue };
            let inner = inner.strip_suffix(".rs").unwrap_or(inner);
            let mut place: Names = inner.split('/').map(str::to_owned).collect();
            place.pop_if(|name| name == "mod");
            let code = syn::parse_file(&text).expect("the engine compiles");
            let mut reader = Reader { place: place.clone(), module: Module { file, ..Module::default() } };
            code.items.iter().for_each(|item| reader.import(item));
            code.items.iter().for_each(|item| reader.visit_item(item));
            modules.insert(place, reader.module);
        }
        assert!(modules.len() > 50, "{ENGINE} is where the engine was");
        Self { modules }
    }

    /// The module that defines what a path names, if that is one of the engine.
    fn definer(&self, path: &[String]) -> Option<&Names> {
        let mut place = Vec::new();
        for (at, name) in path.iter().enumerate() {
            place.push(name.clone());
            if self.modules.contains_key(&place) {
                continue;
            }
            place.pop();
            let target = self.modules.get(&place)?.imported.get(name);
            return match target {
                Some(target) if !path.starts_with(target) => {
                    self.definer(&[target, &path[at + 1..]].concat()).or_else(|| self.place(&place))
                }
                _ => self.place(&place),
            };
        }
        self.place(&place)
    }

    fn place(&self, place: &[String]) -> Option<&Names> {
        self.modules.get_key_value(place).map(|(place, _)| place)
    }

    /// The files that each file needs, by their places in `modules`.
    fn needs(&self) -> Vec<Vec<usize>> {
        let numbers: HashMap<&Names, usize> = self.modules.keys().zip(0..).collect();
        let needed = |(place, module): (&Names, &Module)| {
            // What is below is passed on by whoever says what a folder has; what is not is needed.
            let passed_on = module.passed_on.iter().filter(|path| !path.starts_with(place));
            let named = module.named.iter().chain(passed_on);
            let found = named.filter_map(|path| self.definer(path)).filter(|found| *found != place);
            found.map(|found| numbers[found]).collect::<BTreeSet<_>>().into_iter().collect()
        };
        self.modules.iter().map(needed).collect()
    }

    fn name(&self, number: usize) -> &str {
        self.modules.values().nth(number).map_or("", |module| module.file.strip_prefix(ENGINE).unwrap_or_default())
    }
}

fn is_test(file: &str) -> bool {
    file.ends_with("tests.rs") || file.contains("tests/")
}

/// Reads a file of a module.
struct Reader {
    place: Names,
    module: Module,
}

impl Reader {
    /// A path as it is seen from the root of the engine; `None` if it does not begin there.
    fn seen_from_root(&self, path: &[String]) -> Option<Names> {
        let mut place = self.place.clone();
        let rest = match path.first()?.as_str() {
            "self" => &path[1..],
            "super" => {
                let up = path.iter().take_while(|name| *name == "super").count();
                place.truncate(place.len().checked_sub(up)?);
                &path[up..]
            }
            "crate" if path.get(1).is_some_and(|name| name == "engine") => {
                place.clear();
                &path[2..]
            }
            _ => return None,
        };
        Some([place, rest.to_vec()].concat())
    }

    /// `use child::Name;`, which begins here.
    fn imported(&self, path: &[String]) -> Option<Names> {
        let here = || [self.place.clone(), path.to_vec()].concat();
        let foreign = ["crate", "std", "core", "alloc"].contains(&path.first()?.as_str());
        self.seen_from_root(path).or_else(|| (!foreign).then(here))
    }

    fn take(&mut self, tree: &UseTree, before: &[String], is_passed_on: bool) {
        let with = |name: String| [before, &[name]].concat();
        match tree {
            UseTree::Path(path) => self.take(&path.tree, &with(path.ident.to_string()), is_passed_on),
            UseTree::Group(group) => group.items.iter().for_each(|tree| self.take(tree, before, is_passed_on)),
            UseTree::Name(name) if name.ident == "self" => {
                let last = before.last().cloned().unwrap_or_default();
                self.add(before, last, is_passed_on);
            }
            UseTree::Name(name) => self.add(&with(name.ident.to_string()), name.ident.to_string(), is_passed_on),
            UseTree::Rename(name) => self.add(&with(name.ident.to_string()), name.rename.to_string(), is_passed_on),
            UseTree::Glob(_) => self.module.globs.extend(self.path(before).map(|path| path.join("::"))),
        }
    }

    fn add(&mut self, path: &[String], name: String, is_passed_on: bool) {
        let Some(path) = self.imported(path) else { return };
        let names = if is_passed_on { &mut self.module.passed_on } else { &mut self.module.named };
        names.insert(path.clone());
        self.module.imported.insert(name, path);
    }

    /// Takes note of what an item of the file imports, before its paths are read.
    fn import(&mut self, item: &Item) {
        match item {
            Item::Mod(module) if !is_for_tests(&module.attrs) => {
                self.module.children.insert(module.ident.to_string());
            }
            Item::Use(import) if !is_for_tests(&import.attrs) => {
                let is_passed_on = !matches!(import.vis, syn::Visibility::Inherited);
                self.take(&import.tree, &[], is_passed_on);
            }
            _ => {}
        }
    }

    /// A path in the code, which may begin with what was imported or with a module below.
    fn path(&self, path: &[String]) -> Option<Names> {
        let first = path.first()?;
        let of_import = || Some([self.module.imported.get(first)?, &path[1..]].concat());
        let of_child = || self.module.children.contains(first).then(|| [&self.place, path].concat());
        self.seen_from_root(path).or_else(of_import).or_else(of_child)
    }
}

fn is_for_tests(attributes: &[Attribute]) -> bool {
    let tests = |attribute: &&Attribute| attribute.path().is_ident("cfg") && attribute.meta.require_list().is_ok();
    attributes.iter().filter(tests).any(|attribute| {
        attribute.meta.require_list().is_ok_and(|list| list.tokens.to_string().split(' ').any(|word| word == "test"))
    })
}

impl<'ast> Visit<'ast> for Reader {
    fn visit_item(&mut self, item: &'ast Item) {
        match item {
            Item::Mod(module) if module.content.is_none() || is_for_tests(&module.attrs) => {}
            Item::Fn(function) if is_for_tests(&function.attrs) => {}
            // What it calls `super` is this file.
            Item::Mod(module) => {
                self.place.push(module.ident.to_string());
                syn::visit::visit_item_mod(self, module);
                self.place.pop();
            }
            Item::Use(_) => {}
            Item::Impl(methods) if methods.trait_.is_none() => {
                if let syn::Type::Path(of) = methods.self_ty.as_ref() {
                    let names: Names = of.path.segments.iter().map(|segment| segment.ident.to_string()).collect();
                    self.module.extended.extend(self.path(&names));
                }
                syn::visit::visit_item_impl(self, methods);
            }
            other => syn::visit::visit_item(self, other),
        }
    }

    /// `pub(in path)` needs nothing of the path.
    fn visit_visibility(&mut self, _: &'ast syn::Visibility) {}

    fn visit_path(&mut self, path: &'ast RustPath) {
        let names: Names = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        self.module.named.extend(self.path(&names));
        syn::visit::visit_path(self, path);
    }

    /// What a macro is given is not parsed: paths in it are found by their words.
    fn visit_macro(&mut self, called: &'ast syn::Macro) {
        let text = called.tokens.to_string();
        let words: Vec<&str> = text.split_whitespace().collect();
        for at in (0..words.len()).filter(|at| *at == 0 || words[at - 1] != "::") {
            let mut path = vec![words[at].to_owned()];
            let pairs = words[at + 1..].chunks_exact(2).take_while(|pair| pair[0] == "::");
            path.extend(pairs.map(|pair| pair[1].to_owned()));
            if path.len() > 1 {
                self.module.named.extend(self.path(&path));
            }
        }
    }
}

/// Files that reach each other, most first (Tarjan 1972).
fn circles(needs: &[Vec<usize>]) -> Vec<Vec<usize>> {
    struct Walk<'a> {
        needs: &'a [Vec<usize>],
        number: Vec<Option<usize>>,
        least: Vec<usize>,
        open: Vec<usize>,
        found: Vec<Vec<usize>>,
        next: usize,
    }
    impl Walk<'_> {
        fn go(&mut self, file: usize) {
            (self.number[file], self.least[file]) = (Some(self.next), self.next);
            self.next += 1;
            self.open.push(file);
            for needed in self.needs[file].clone() {
                match self.number[needed] {
                    None => {
                        self.go(needed);
                        self.least[file] = self.least[file].min(self.least[needed]);
                    }
                    Some(number) if self.open.contains(&needed) => self.least[file] = self.least[file].min(number),
                    Some(_) => {}
                }
            }
            if Some(self.least[file]) == self.number[file] {
                let at = self.open.iter().position(|open| *open == file).unwrap_or_default();
                self.found.push(self.open.split_off(at));
            }
        }
    }
    let count = needs.len();
    let (number, least, open, found) = (vec![None; count], vec![0; count], Vec::new(), Vec::new());
    let mut walk = Walk { needs, number, least, open, found, next: 0 };
    for file in 0..count {
        if walk.number[file].is_none() {
            walk.go(file);
        }
    }
    walk.found.sort_by_key(|circle| std::cmp::Reverse(circle.len()));
    walk.found
}

#[test]
fn no_three_files_of_the_engine_need_each_other() {
    let engine = Engine::read();
    let needs = engine.needs();
    let mut findings = Vec::new();
    for circle in circles(&needs).into_iter().filter(|circle| circle.len() > 2) {
        for file in &circle {
            let within =
                needs[*file].iter().filter(|needed| circle.contains(needed)).map(|needed| engine.name(*needed));
            findings.push(format!("{} needs {}", engine.name(*file), within.collect::<Vec<_>>().join(", ")));
        }
    }
    assert_none("files of the engine need each other in a circle of more than two", findings);
}

/// The layer of a file.
fn layer(file: &str) -> Option<usize> {
    let place = file.trim_end_matches(".rs").trim_end_matches("/mod");
    let within = |name: &str| place.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    let named = LAYERS.iter().zip(0..).flat_map(|((_, names), layer)| names.iter().map(move |name| (*name, layer)));
    named.filter(|(name, _)| within(name)).max_by_key(|(name, _)| name.len()).map(|(_, layer)| layer)
}

#[test]
fn imports_of_the_engine_go_down_its_layers() {
    let engine = Engine::read();
    let mut findings = Vec::new();
    for (file, needed) in engine.needs().into_iter().zip(0..).map(|(needed, file)| (engine.name(file), needed)) {
        // It names all, and nothing names it.
        if file == "mod.rs" {
            continue;
        }
        let Some(own) = layer(file) else {
            findings.push(format!("{file} is in no layer"));
            continue;
        };
        let above = needed
            .into_iter()
            .map(|needed| engine.name(needed))
            .filter(|name| layer(name).is_none_or(|layer| layer > own));
        findings.extend(above.map(|name| format!("{file}, of \"{}\", needs {name}, which is above it", LAYERS[own].0)));
    }
    assert_none("imports of the engine go down", findings);
}

#[test]
fn methods_are_no_way_round_the_layers() {
    let engine = Engine::read();
    let mut findings = Vec::new();
    for (place, module) in &engine.modules {
        let own = layer(module.file.strip_prefix(ENGINE).unwrap_or_default());
        for of in module.extended.iter().filter(|of| of.last().is_some_and(|name| !FACES.contains(&name.as_str()))) {
            let Some(definer) = engine.definer(of).filter(|definer| *definer != place) else { continue };
            if own > layer(&definer.join("/")) {
                findings.push(format!("{} gives methods to {}", module.file, of.join("::")));
            }
        }
        findings.extend(module.globs.iter().map(|glob| format!("{} imports all of {glob}", module.file)));
    }
    assert_none("methods are found without an import, so types have them in their own layer", findings);
}

#[test]
fn layers_name_what_is_there() {
    let engine = Engine::read();
    let names = LAYERS.iter().flat_map(|(_, names)| *names);
    let missing =
        names.filter(|name| !engine.modules.contains_key(&name.split('/').map(str::to_owned).collect::<Names>()));
    assert_none("layers name files and folders of the engine", missing.map(|name| (*name).to_owned()).collect());
}
