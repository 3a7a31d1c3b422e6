//! What: the node table and the wake-ups of a queue under every order of steps that their threads
//! can take.
//!
//! In: `table.rs`, `lookup_count.rs` and `ring.rs` (see [`transport`]) of the daemon, as they are. Out: status 0, or the first
//! order that breaks a promise. Run it with
//! `cargo run --manifest-path model/Cargo.toml --target-dir target/model` (some seconds): loom
//! runs each scenario in all orders that the memory model of C11 allows, up to a bound.
//!
//! What is not the daemon's own: the cell of a slot is a lock here (`arc-swap` answers for its
//! cell), making a chunk is one step, and [`Store`] says in a few lines what `inodes.rs` does
//! around the two files: change both together.

#[path = "../src/passthrough/store/lookup_count.rs"]
mod lookup_count;
#[path = "../src/passthrough/store/table.rs"]
mod table;
mod table_sync;
mod transport;

use loom::sync::{Arc, Mutex};
use loom::thread;

use lookup_count::LookupCount;
use table::{Numbered, Table};

/// Orders in which a thread is interrupted more often than this, other than by a lock, are left
/// out: with three threads they are too many, and no bug of this kind is known to need more.
const PREEMPTIONS_MAX: usize = 5;

/// Numbers start here.
const BASE: u64 = 5;

/// What is in the table: its number, and who put it there.
#[derive(Debug)]
struct Node {
    number: u64,
    name: &'static str,
    lookups: LookupCount,
}

impl Numbered for Node {
    fn number(&self) -> u64 {
        self.number
    }
}

fn node(name: &'static str) -> impl FnOnce(u64) -> Node {
    move |number| Node {
        number,
        name,
        lookups: LookupCount::one(),
    }
}

fn insert(table: &Table<Node>, name: &'static str) -> Arc<Node> {
    table.insert_with(node(name)).expect("there are slots left")
}

fn main() {
    let table: [(&str, fn()); _] = [
        ("old number is never answered with a new node", reuse),
        (
            "node is taken out once, and its slot is free once",
            remove_twice,
        ),
        (
            "slots pass between threads and none is given twice",
            insert_and_remove,
        ),
        ("slot that is used up is used no more", use_up),
        (
            "lookup that races the last forget is not lost",
            lookup_and_forget,
        ),
        (
            "lookup without a lock that races the last forget is not lost",
            hinted_lookup_and_forget,
        ),
        (
            "lookups with and without a lock agree on the node",
            hinted_and_locked_lookups,
        ),
        (
            "two last forgets and a lookup agree on who is last",
            two_forgets,
        ),
    ];
    for (name, scenario) in table.into_iter().chain(transport::scenarios()) {
        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some(PREEMPTIONS_MAX);
        model.check(scenario);
        println!("ok: {name}");
    }
}

fn reuse() {
    let table = Arc::new(Table::new(BASE));
    let old = insert(&table, "old");
    let number = old.number;
    let reader = {
        let table = Arc::clone(&table);
        thread::spawn(move || {
            for _ in 0..2 {
                if let Some(found) = table.get(number) {
                    assert_eq!((found.number, found.name), (number, "old"));
                }
            }
        })
    };
    assert!(table.remove(&old));
    let new = insert(&table, "new");
    assert_ne!(new.number, number);
    reader.join().unwrap();
    assert!(table.get(number).is_none());
    assert_eq!(table.get(new.number).unwrap().name, "new");
}

fn remove_twice() {
    let table = Arc::new(Table::new(BASE));
    let old = insert(&table, "old");
    let remove_and_insert = |table: &Table<Node>, old: &Arc<Node>, name| {
        let removed = table.remove(old);
        (removed, insert(table, name))
    };
    let other = {
        let (table, old) = (Arc::clone(&table), Arc::clone(&old));
        thread::spawn(move || remove_and_insert(&table, &old, "theirs"))
    };
    let (mine, my_node) = remove_and_insert(&table, &old, "mine");
    let (theirs, their_node) = other.join().unwrap();
    assert!(mine != theirs);
    assert_ne!(my_node.number, their_node.number);
    for node in [&my_node, &their_node] {
        assert_eq!(table.get(node.number).unwrap().name, node.name);
    }
    assert!(table.get(old.number).is_none());
    assert_eq!(table.iter().count(), 2);
}

fn insert_and_remove() {
    let table = Arc::new(Table::new(BASE));
    let come_and_go = |table: &Table<Node>, name| {
        let first = insert(table, name);
        assert!(table.remove(&first));
        let second = insert(table, name);
        assert_eq!(table.get(second.number).unwrap().name, name);
        assert!(table.get(first.number).is_none());
        [first.number, second.number]
    };
    let other = {
        let table = Arc::clone(&table);
        thread::spawn(move || come_and_go(&table, "theirs"))
    };
    let mine = come_and_go(&table, "mine");
    let theirs = other.join().unwrap();
    assert!(mine.iter().all(|number| !theirs.contains(number)));
    assert_eq!(table.iter().count(), 2);
}

fn use_up() {
    let table = Arc::new(Table::new(BASE));
    let come_and_go = |table: &Table<Node>| {
        let node = insert(table, "any");
        assert!(table.remove(&node));
        node.number
    };
    let other = {
        let table = Arc::clone(&table);
        thread::spawn(move || come_and_go(&table))
    };
    let mut numbers: Vec<_> = (0..table_sync::GENERATIONS)
        .map(|_| come_and_go(&table))
        .collect();
    numbers.push(other.join().unwrap());
    numbers.sort();
    numbers.dedup();
    assert_eq!(numbers.len() as u32, table_sync::GENERATIONS + 1);
    let last = BASE + (u64::from(table_sync::GENERATIONS) << table::INDEX_BITS);
    assert!(numbers.iter().all(|number| *number < last));
    assert_eq!(table.iter().count(), 0);
}

/// One identity of the store in `inodes.rs`.
struct Store {
    by_number: Table<Node>,
    by_identity: Mutex<Option<Arc<Node>>>,
}

impl Store {
    fn new() -> Arc<Self> {
        Arc::new(Store {
            by_number: Table::new(BASE),
            by_identity: Mutex::new(None),
        })
    }

    /// `grant_by_hint`, with a number that was once the right one, or else as `look_up`.
    fn look_up_hinted(&self, hint: u64) -> u64 {
        let found = self.by_number.get(hint);
        match found.filter(|node| node.lookups.add_if_held()) {
            Some(node) => node.number,
            None => self.look_up(),
        }
    }

    /// `grant_by_stat`, or `insert` when it finds nothing.
    fn look_up(&self) -> u64 {
        let mut map = self.by_identity.lock().unwrap();
        if let Some(node) = &*map {
            node.lookups.add();
            return node.number;
        }
        let node = insert(&self.by_number, "file");
        *map = Some(Arc::clone(&node));
        node.number
    }

    /// `forget`, `let_go` and `remove_unless_held`.
    fn forget(&self, number: u64) {
        let found = self.by_number.get(number);
        let Some(node) = found.filter(|node| node.lookups.is_held()) else {
            return;
        };
        if !node.lookups.take(1) {
            return;
        }
        let mut map = self.by_identity.lock().unwrap();
        if node.lookups.is_held() {
            return;
        }
        let is_known = map
            .as_ref()
            .is_some_and(|present| Arc::ptr_eq(present, &node));
        if is_known {
            *map = None;
        }
        self.by_number.remove(&node);
    }

    fn holds(&self, number: u64) -> bool {
        self.by_number
            .get(number)
            .is_some_and(|node| node.lookups.is_held())
    }

    fn assert_is_empty(&self) {
        assert_eq!(self.by_number.iter().count(), 0);
        assert!(self.by_identity.lock().unwrap().is_none());
    }
}

fn lookup_and_forget() {
    let store = Store::new();
    let first = store.look_up();
    let forgetter = {
        let store = Arc::clone(&store);
        thread::spawn(move || store.forget(first))
    };
    let second = store.look_up();
    assert!(store.holds(second));
    forgetter.join().unwrap();
    assert!(store.holds(second));
    store.forget(second);
    assert!(!store.holds(first) && !store.holds(second));
    store.assert_is_empty();
}

fn hinted_lookup_and_forget() {
    let store = Store::new();
    let first = store.look_up();
    let forgetter = {
        let store = Arc::clone(&store);
        thread::spawn(move || store.forget(first))
    };
    let second = store.look_up_hinted(first);
    assert!(store.holds(second));
    forgetter.join().unwrap();
    let third = store.look_up_hinted(first);
    assert_eq!(second, third);
    store.forget(second);
    assert!(store.holds(second));
    store.forget(second);
    assert!(!store.holds(first) && !store.holds(second));
    store.assert_is_empty();
}

fn hinted_and_locked_lookups() {
    let store = Store::new();
    let first = store.look_up();
    let other = {
        let store = Arc::clone(&store);
        thread::spawn(move || {
            let number = store.look_up_hinted(first);
            assert!(store.holds(number));
            store.forget(number);
        })
    };
    store.forget(first);
    let second = store.look_up();
    assert!(store.holds(second));
    store.forget(second);
    other.join().unwrap();
    assert!(!store.holds(first) && !store.holds(second));
    store.assert_is_empty();
}

fn two_forgets() {
    let store = Store::new();
    let (first, second) = (store.look_up(), store.look_up());
    assert_eq!(first, second);
    let forgetters = [0, 1].map(|_| {
        let store = Arc::clone(&store);
        thread::spawn(move || store.forget(first))
    });
    let third = store.look_up();
    for forgetter in forgetters {
        forgetter.join().unwrap();
    }
    assert!(store.holds(third));
    store.forget(third);
    store.assert_is_empty();
}
