//! The nodes that a thread met: one copy of each id, and few. A server may name itself as it likes.

use std::sync::Arc;

use crate::record::Tally;

/// Nodes that are told apart. Further ones are one.
const MOST: usize = 1024;

#[derive(Default)]
pub(super) struct Nodes(Vec<(u32, Arc<str>)>);

impl Nodes {
    /// What all further nodes are called.
    const OTHERS: &str = "a node beyond the first 1024";

    /// The id's hash, and the one copy of it on this thread; of a long one only what tables show.
    pub(super) fn meet(&mut self, id: &str) -> (u32, Arc<str>) {
        let hash = node_hash(id);
        let id = &id[..id.floor_char_boundary(Tally::LONGEST)];
        if let Some((_, known)) = self.0.iter().find(|(_, known)| &**known == id) {
            return (hash, Arc::clone(known));
        }
        if self.0.len() > MOST {
            return (hash, Arc::clone(&self.0[MOST].1));
        }
        let kept = if self.0.len() < MOST { id } else { Self::OTHERS };
        self.0.push((hash, Arc::from(kept)));
        (hash, Arc::clone(&self.0[self.0.len() - 1].1))
    }
}

/// The same in all processes.
fn node_hash(id: &str) -> u32 {
    crc32fast::hash(id.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thousand_nodes_are_told_apart_and_no_more_are_kept() {
        let mut nodes = Nodes::default();
        let long = "ä".repeat(1000);
        assert!(nodes.meet(&long).1.len() <= Tally::LONGEST);
        for number in 0..5000 {
            let (hash, id) = nodes.meet(&format!("n-{number}"));
            assert_eq!(hash, node_hash(&format!("n-{number}")), "the hash is the node's own");
            let known = number < MOST - 1;
            assert_eq!(&*id == Nodes::OTHERS, !known, "{number}: {id}");
        }
        assert_eq!(nodes.0.len(), MOST + 1);
        assert_eq!(&*nodes.meet("n-7").1, "n-7");
    }
}
