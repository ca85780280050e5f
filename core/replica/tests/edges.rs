//! What happens at the edges of frames, pages and units, and to a node whose oplog is older than its peers remember.

#[allow(unreachable_pub, dead_code)]
mod mesh;

use entgldb_replica::event::Event;
use entgldb_replica::limits::Limits;
use entgldb_replica::version::Seq;
use entgldb_replica::wire::Message;

use mesh::Mesh;

fn rolled_back(mesh: &Mesh, node: usize) -> usize {
    mesh.nodes[node].events.iter().filter(|event| matches!(event, Event::RolledBack { .. })).count()
}

#[test]
fn a_history_comes_through_frames_of_a_kibibyte_and_pages_of_one_entry() {
    for page_entries in [1, 1024] {
        let mut mesh = Mesh::new(3, &["t", "u"]);
        mesh.frame_bytes_max = 1 << 10;
        let small =
            Limits { page_entries, pages_in_flight: 1, vector_logs: 1, push_links: 1, ..Limits::default() };
        (0..3).for_each(|node| mesh.limit(node, small));
        for n in 0..60 {
            let key = format!("k{n}");
            mesh.write_at(0, &[("t", &key, Some("a little text")), ("u", &key, Some("and more of it"))]);
            mesh.settle();
        }
        mesh.link(0, 1);
        mesh.link(1, 2);
        mesh.run(60_000);
        mesh.assert_equal();
        assert_eq!(mesh.store(2).docs.len(), 120, "pages of {page_entries}");
    }
}

#[test]
fn a_unit_that_fits_no_frame_of_a_peer_is_told_of_and_the_others_go_on() {
    let mut mesh = Mesh::new(3, &["t"]);
    mesh.frame_bytes_max = 1 << 10;
    mesh.write(0, "t", "large", &"x".repeat(4_000));
    mesh.settle();
    mesh.write(2, "t", "small", "x");
    mesh.settle();
    mesh.link(0, 1);
    mesh.link(0, 2);
    mesh.run(10_000);
    let told = |event: &Event| matches!(event, Event::RefusedByPeer { detail, .. } if detail.contains("frame_bytes_max"));
    assert!(mesh.nodes[0].events.iter().any(told));
    assert_eq!(mesh.store(1).docs.len(), 1, "what another author wrote has come");
    mesh.unlink(0, 1);
    mesh.frame_bytes_max = 1 << 20;
    mesh.link(0, 1);
    mesh.run(10_000);
    assert_eq!(mesh.store(1).docs.len(), 2, "a link with larger frames takes all");
}

#[test]
fn a_unit_with_long_keys_is_cut_so_that_it_fits_a_frame() {
    let mut mesh = Mesh::new(2, &["t"]);
    let changes: Vec<(String, String)> =
        (0..3_000).map(|n| (format!("{n:0>1000}"), "x".repeat(700))).collect();
    let changes: Vec<(&str, &str, Option<&str>)> =
        changes.iter().map(|(key, content)| ("t", &key[..], Some(&content[..]))).collect();
    mesh.write_at(0, &changes);
    mesh.settle();
    mesh.link(0, 1);
    mesh.run(5_000);
    mesh.assert_equal();
    assert_eq!(mesh.store(1).docs.len(), 3_000);
}

#[test]
fn a_restored_node_that_wrote_before_it_met_anybody_goes_on_in_a_new_incarnation() {
    // The other branch is longer, as long, and shorter than what the peer has.
    for writes in 1..=3 {
        let mut mesh = Mesh::new(2, &["t"]);
        mesh.link(0, 1);
        mesh.write(0, "t", "a", "1");
        mesh.settle();
        let backup = mesh.store(0).clone();
        for key in ["b", "c"] {
            mesh.write(0, "t", key, "lost with the disk");
            mesh.settle();
        }
        mesh.crash(0);
        mesh.nodes[0].mark = None;
        mesh.start(0, backup);
        for n in 0..writes {
            mesh.write(0, "t", &format!("on the other branch {n}"), "x");
            mesh.settle();
        }
        mesh.link(0, 1);
        mesh.run(5_000);
        assert_eq!(rolled_back(&mesh, 0), 1, "{writes} writes");
        mesh.write(0, "t", "after", "it goes on");
        mesh.run(5_000);
        let arrived = mesh.store(1).docs.keys().any(|(_, key)| key.as_str() == "after");
        assert!(arrived, "{writes} writes on the other branch");
        // Neither takes the other's branch, and yet each gets what is in it.
        mesh.run(200_000);
        let (ours, theirs) = (mesh.store(0).clone(), mesh.store(1).clone());
        assert_eq!(
            ours.docs.len(),
            4 + writes,
            "{writes} writes on the other branch: {:?}",
            ours.docs.keys()
        );
        assert_eq!(
            (&ours.docs, &ours.rows),
            (&theirs.docs, &theirs.rows),
            "{writes} writes on the other branch"
        );
    }
}

#[test]
fn a_claim_about_a_nodes_own_log_without_its_signature_moves_nothing() {
    fn claim_more(kind: u64, body: bytes::Bytes) -> bytes::Bytes {
        match Message::decode(kind, body.clone()) {
            Ok(Some(Message::Vector(mut part))) => {
                part.heads.iter_mut().for_each(|(_, head)| head.seq = Seq(head.seq.0 + 5));
                part.own.iter_mut().for_each(|own| own.signed.head.seq = Seq(own.signed.head.seq.0 + 5));
                Message::Vector(part).encode().1
            }
            _ => body,
        }
    }
    let mut mesh = Mesh::new(2, &["t"]);
    mesh.link(0, 1);
    mesh.write(0, "t", "a", "1");
    mesh.settle();
    mesh.unlink(0, 1);
    mesh.tamper = Some(claim_more);
    mesh.link(0, 1);
    mesh.run(5_000);
    assert_eq!((rolled_back(&mesh, 0), rolled_back(&mesh, 1)), (0, 0));
    let told =
        |event: &Event| matches!(event, Event::Refused { detail, .. } if detail.contains("proves nothing"));
    assert!(mesh.nodes[0].events.iter().any(told));
}
