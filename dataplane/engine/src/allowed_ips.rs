//! Crypto-routing: which peer a prefix belongs to (WireGuard paper, section 2).
//!
//! One path-compressed binary trie for each address family. Keys are the prefix bits left-aligned in 128 bits, so that
//! both families share the code. Prefixes are exact: giving one to another peer moves it.

use std::net::IpAddr;

use ipnet::IpNet;

/// Prefix to value, looked up by longest match.
#[derive(Debug)]
pub struct AllowedIps<V> {
    v4: Trie<V>,
    v6: Trie<V>,
}

impl<V: Copy + PartialEq> AllowedIps<V> {
    /// An empty table.
    pub const fn new() -> Self {
        Self {
            v4: Trie::new(32),
            v6: Trie::new(128),
        }
    }

    /// Gives `prefix` to `value` and returns whose it was.
    pub fn insert(&mut self, prefix: IpNet, value: V) -> Option<V> {
        let (trie, key) = self.trie_mut(prefix);
        trie.insert(key, value)
    }

    /// Takes `prefix` away if it is there, exactly, and belongs to `value`.
    pub fn remove(&mut self, prefix: IpNet, value: V) -> bool {
        let (trie, key) = self.trie_mut(prefix);
        trie.remove(key, value)
    }

    /// The value of the longest prefix that contains `address`.
    pub fn lookup(&self, address: IpAddr) -> Option<V> {
        match address {
            IpAddr::V4(v4) => self.v4.lookup(u128::from(v4.to_bits()) << 96),
            IpAddr::V6(v6) => self.v6.lookup(v6.to_bits()),
        }
    }

    /// The value of exactly this prefix.
    pub fn get(&self, prefix: IpNet) -> Option<V> {
        match prefix {
            IpNet::V4(_) => self.v4.get(Key::of(prefix)),
            IpNet::V6(_) => self.v6.get(Key::of(prefix)),
        }
    }

    fn trie_mut(&mut self, prefix: IpNet) -> (&mut Trie<V>, Key) {
        let trie = match prefix {
            IpNet::V4(_) => &mut self.v4,
            IpNet::V6(_) => &mut self.v6,
        };
        (trie, Key::of(prefix))
    }
}

impl<V: Copy + PartialEq> Default for AllowedIps<V> {
    fn default() -> Self {
        Self::new()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Key {
    /// Left-aligned; zero beyond `len`.
    bits: u128,
    len: u8,
}

impl Key {
    fn of(prefix: IpNet) -> Self {
        let bits = match prefix {
            IpNet::V4(net) => u128::from(net.network().to_bits()) << 96,
            IpNet::V6(net) => net.network().to_bits(),
        };
        Self {
            bits,
            len: prefix.prefix_len(),
        }
    }

    fn contains(self, address: u128) -> bool {
        self.len == 0 || (self.bits ^ address) >> (128 - u32::from(self.len)) == 0
    }

    /// Which child of a node with this key an address below it belongs to.
    fn branch(self, address: u128) -> usize {
        usize::from(address >> (127 - u32::from(self.len)) & 1 == 1)
    }

    /// The longest key that contains both.
    fn common(self, other: Self) -> Self {
        let same = (self.bits ^ other.bits).leading_zeros() as u8;
        let len = same.min(self.len).min(other.len);
        let bits = if len == 0 {
            0
        } else {
            self.bits & (u128::MAX << (128 - u32::from(len)))
        };
        Self { bits, len }
    }
}

#[derive(Debug)]
struct Node<V> {
    key: Key,
    /// `None` for a node that only joins two others.
    value: Option<V>,
    children: [u32; 2],
}

/// No child.
const NIL: u32 = u32::MAX;

#[derive(Debug)]
struct Trie<V> {
    address_bits: u8,
    nodes: Vec<Node<V>>,
    free: Vec<u32>,
    root: u32,
}

/// Where a node hangs.
#[derive(Clone, Copy)]
enum Link {
    Root,
    Child(u32, usize),
}

impl<V: Copy + PartialEq> Trie<V> {
    const fn new(address_bits: u8) -> Self {
        Self {
            address_bits,
            nodes: Vec::new(),
            free: Vec::new(),
            root: NIL,
        }
    }

    fn lookup(&self, address: u128) -> Option<V> {
        let mut best = None;
        let mut at = self.root;
        while at != NIL {
            let node = &self.nodes[at as usize];
            if !node.key.contains(address) {
                break;
            }
            best = node.value.or(best);
            if node.key.len == self.address_bits {
                break;
            }
            at = node.children[node.key.branch(address)];
        }
        best
    }

    fn get(&self, key: Key) -> Option<V> {
        let mut at = self.root;
        while at != NIL {
            let node = &self.nodes[at as usize];
            if node.key == key {
                return node.value;
            }
            if node.key.len >= key.len || !node.key.contains(key.bits) {
                return None;
            }
            at = node.children[node.key.branch(key.bits)];
        }
        None
    }

    fn insert(&mut self, key: Key, value: V) -> Option<V> {
        let mut link = Link::Root;
        loop {
            let at = self.follow(link);
            if at == NIL {
                let leaf = self.allocate(key, Some(value));
                self.hang(link, leaf);
                return None;
            }
            let here = self.nodes[at as usize].key;
            if here == key {
                return self.nodes[at as usize].value.replace(value);
            }
            if here.len < key.len && here.contains(key.bits) {
                link = Link::Child(at, here.branch(key.bits));
                continue;
            }
            self.split(link, at, here, key, value);
            return None;
        }
    }

    /// Puts `key` between `link` and the node `at` that does not contain it.
    fn split(&mut self, link: Link, at: u32, here: Key, key: Key, value: V) {
        let fork = here.common(key);
        let upper = if fork == key {
            self.allocate(key, Some(value))
        } else {
            let upper = self.allocate(fork, None);
            let leaf = self.allocate(key, Some(value));
            self.nodes[upper as usize].children[fork.branch(key.bits)] = leaf;
            upper
        };
        self.nodes[upper as usize].children[fork.branch(here.bits)] = at;
        self.hang(link, upper);
    }

    fn remove(&mut self, key: Key, value: V) -> bool {
        let mut parent = None;
        let mut link = Link::Root;
        loop {
            let at = self.follow(link);
            if at == NIL {
                return false;
            }
            let node = &mut self.nodes[at as usize];
            if node.key == key {
                if node.value != Some(value) {
                    return false;
                }
                node.value = None;
                self.splice(link, at);
                if let Some((parent_link, parent_at)) = parent {
                    self.splice(parent_link, parent_at);
                }
                return true;
            }
            if node.key.len >= key.len || !node.key.contains(key.bits) {
                return false;
            }
            let next = Link::Child(at, node.key.branch(key.bits));
            parent = Some((link, at));
            link = next;
        }
    }

    /// Takes a node out that neither holds a value nor joins two others.
    fn splice(&mut self, link: Link, at: u32) {
        let node = &self.nodes[at as usize];
        if node.value.is_some() || !node.children.contains(&NIL) {
            return;
        }
        let only_child = if node.children[0] == NIL {
            node.children[1]
        } else {
            node.children[0]
        };
        self.hang(link, only_child);
        self.free.push(at);
    }

    fn follow(&self, link: Link) -> u32 {
        match link {
            Link::Root => self.root,
            Link::Child(parent, branch) => self.nodes[parent as usize].children[branch],
        }
    }

    fn hang(&mut self, link: Link, at: u32) {
        match link {
            Link::Root => self.root = at,
            Link::Child(parent, branch) => self.nodes[parent as usize].children[branch] = at,
        }
    }

    fn allocate(&mut self, key: Key, value: Option<V>) -> u32 {
        let node = Node {
            key,
            value,
            children: [NIL; 2],
        };
        if let Some(at) = self.free.pop() {
            self.nodes[at as usize] = node;
            return at;
        }
        self.nodes.push(node);
        (self.nodes.len() - 1) as u32
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use proptest::prelude::*;

    use super::*;

    /// The stupid twin: a list, searched from end to end.
    #[derive(Default)]
    struct List(Vec<(IpNet, u8)>);

    impl List {
        fn insert(&mut self, prefix: IpNet, value: u8) -> Option<u8> {
            let old = self
                .0
                .iter()
                .position(|(p, _)| *p == prefix)
                .map(|i| self.0.remove(i).1);
            self.0.push((prefix, value));
            old
        }

        fn remove(&mut self, prefix: IpNet, value: u8) -> bool {
            let before = self.0.len();
            self.0.retain(|entry| *entry != (prefix, value));
            self.0.len() < before
        }

        fn get(&self, prefix: IpNet) -> Option<u8> {
            let entry = self.0.iter().find(|(it, _)| *it == prefix);
            entry.map(|(_, value)| *value)
        }

        fn lookup(&self, address: IpAddr) -> Option<u8> {
            let containing = self
                .0
                .iter()
                .filter(|(prefix, _)| prefix.contains(&address));
            containing
                .max_by_key(|(prefix, _)| prefix.prefix_len())
                .map(|(_, value)| *value)
        }
    }

    #[derive(Clone, Debug)]
    enum Op {
        Insert(IpNet, u8),
        Remove(IpNet, u8),
    }

    /// Few distinct bits, so that prefixes nest and collide.
    fn prefix() -> impl Strategy<Value = IpNet> {
        let v4 = (0u32..64, 0u8..=32).prop_map(|(bits, len)| {
            let address = Ipv4Addr::from_bits(bits << 26 | bits >> 3);
            IpNet::new(address.into(), len).unwrap().trunc()
        });
        let v6 = (0u128..64, 0u8..=128).prop_map(|(bits, len)| {
            let address = Ipv6Addr::from_bits(bits << 122 | bits << 60 | bits);
            IpNet::new(address.into(), len).unwrap().trunc()
        });
        prop_oneof![v4, v6]
    }

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            2 => (prefix(), 0u8..4).prop_map(|(p, v)| Op::Insert(p, v)),
            1 => (prefix(), 0u8..4).prop_map(|(p, v)| Op::Remove(p, v)),
        ]
    }

    proptest! {
        #[test]
        fn the_trie_agrees_with_the_list(ops in prop::collection::vec(op(), 0..120)) {
            let mut trie = AllowedIps::new();
            let mut list = List::default();
            for op in &ops {
                match *op {
                    Op::Insert(p, v) => prop_assert_eq!(trie.insert(p, v), list.insert(p, v)),
                    Op::Remove(p, v) => prop_assert_eq!(trie.remove(p, v), list.remove(p, v)),
                }
            }
            for op in &ops {
                let (Op::Insert(p, _) | Op::Remove(p, _)) = *op;
                prop_assert_eq!(trie.get(p), list.get(p), "{}", p);
                for address in [p.network(), p.broadcast(), p.addr()] {
                    prop_assert_eq!(trie.lookup(address), list.lookup(address), "{}", address);
                }
            }
        }

        #[test]
        fn an_emptied_trie_keeps_no_nodes(prefixes in prop::collection::btree_set(prefix(), 0..60)) {
            let mut trie = AllowedIps::new();
            for p in &prefixes {
                trie.insert(*p, 1);
            }
            for p in &prefixes {
                prop_assert!(trie.remove(*p, 1));
            }
            for trie in [&trie.v4, &trie.v6] {
                prop_assert_eq!(trie.root, NIL);
                prop_assert_eq!(trie.free.len(), trie.nodes.len());
            }
        }
    }
}
