//! Disks that are full or read-only, and files that have changed on them.

use super::*;

/// A small file system at `folder/disk`, unmounted in the end.
struct Disk(PathBuf);

impl Disk {
    /// `None` where this user may not mount one, which is said.
    fn mounted(folder: &Path) -> Option<Disk> {
        let at = folder.join("disk");
        std::fs::create_dir(&at).unwrap();
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=512k", "tmpfs"]).arg(&at).output();
        match mounted {
            Ok(done) if done.status.success() => Some(Disk(at)),
            Ok(done) => {
                println!("SKIPPED: what needs a small disk: {}", String::from_utf8_lossy(&done.stderr).trim());
                None
            }
            Err(e) => {
                println!("SKIPPED: what needs a small disk: mount: {e}");
                None
            }
        }
    }

    /// Leaves no room.
    fn fill(&self) {
        use std::io::Write;
        let mut file = std::fs::File::create(self.0.join("filler")).unwrap();
        for block in [4096, 1] {
            while file.write_all(&vec![0; block]).is_ok() {}
        }
    }

    fn free(&self) {
        std::fs::remove_file(self.0.join("filler")).unwrap();
    }

    fn remount(&self, how: &str) {
        let how = format!("remount,{how}");
        assert!(Command::new("mount").args(["-o", &how]).arg(&self.0).status().unwrap().success());
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        Command::new("umount").arg("-l").arg(&self.0).status().ok();
    }
}

fn ranks() -> &'static [usize] {
    if has_mpi() { &[0, 3] } else { &[0] }
}

/// Names in a folder and below it, without what fills it.
fn names(folder: &Path) -> Vec<String> {
    let mut names = Vec::new();
    for (path, _) in listing(folder) {
        let name = path.file_name().unwrap().to_string_lossy().to_string();
        if path.is_dir() {
            names.extend(self::names(&path).into_iter().map(|inner| format!("{name}/{inner}")));
        } else if name != "filler" {
            names.push(name);
        }
    }
    names
}

const BOOST: [&str; 7] = ["train", "boost", "t.h5", "--rounds", "6", "--max-leaves", "8"];

fn some_table() -> (TempDir, String) {
    let folder = folder();
    table(&folder, "t.h5", 5003, |_, y| y.iter_mut().step_by(9).for_each(|y| *y = 1 - *y));
    let whole = digest(&done(folder.path(), 0, &[&BOOST[..], &["-o", "whole.h5"]].concat()));
    (folder, whole)
}

#[test]
fn no_room_for_checkpoints_is_said_before_the_work_and_the_one_before_is_good() {
    let (folder, whole) = some_table();
    let at = folder.path();
    let Some(disk) = Disk::mounted(at) else { return };
    let kept = [&BOOST[..], &["-o", "m.h5", "--checkpoint", "disk/kept", "--every", "1steps"]].concat();
    for &n in ranks() {
        std::fs::remove_dir_all(at.join("disk/kept")).ok();
        assert_eq!(consort(at, n, &[&kept[..], &["--time-limit", "1s"]].concat()).code, Some(75));
        let before = names(&disk.0);
        disk.fill();
        let ended = consort(at, n, &kept);
        assert_eq!(ended.code, Some(3), "{n} ranks:\n{}", ended.text);
        one_message(&ended, &["disk/kept", "checkpoints cannot be written there", "No space left"]);
        assert!(n == 0 || ended.text.contains("of 3: --checkpoint: disk/kept"), "{}", ended.text);
        assert!(!at.join("m.h5").exists());
        let before: Vec<String> = before.into_iter().filter(|name| name != "kept/requeue").collect();
        assert_eq!(names(&disk.0), before, "{n} ranks: what is left");
        disk.free();
        let told = done(at, n, &kept);
        assert!(told.contains("goes on after step 1") && digest(&told) == whole, "{told}");
        std::fs::remove_file(at.join("m.h5")).unwrap();
    }
}

#[test]
fn a_model_that_finds_no_room_leaves_the_old_one() {
    let (folder, whole) = some_table();
    let at = folder.path();
    let Some(disk) = Disk::mounted(at) else { return };
    std::fs::copy(at.join("whole.h5"), at.join("disk/old.h5")).unwrap();
    disk.fill();
    let before = listing(&disk.0);
    for (&n, name) in ranks().iter().flat_map(|n| [(n, "disk/old.h5"), (n, "disk/new.h5")]) {
        let ended = consort(at, n, &[&BOOST[..], &["-o", name]].concat());
        assert!(matches!(ended.code, Some(2 | 3)), "{n} ranks:\n{}", ended.text);
        one_message(&ended, &[name]);
        assert_eq!(listing(&disk.0), before, "{n} ranks");
        let predict = ["predict", "whole.h5", "t.h5", "-o", "disk/p.h5"];
        let ended = consort(at, n, &predict);
        assert!(matches!(ended.code, Some(2 | 3)), "{n} ranks:\n{}", ended.text);
        one_message(&ended, &["disk/p.h5"]);
        assert_eq!(listing(&disk.0), before, "{n} ranks");
    }
    assert!(done(at, 0, &["inspect", "disk/old.h5"]).contains(&whole));
}

#[test]
fn what_cannot_be_written_to_is_refused_before_the_work_and_can_still_be_read() {
    let (folder, whole) = some_table();
    let at = folder.path();
    let Some(disk) = Disk::mounted(at) else { return };
    for name in ["t.h5", "whole.h5"] {
        std::fs::copy(at.join(name), at.join("disk").join(name)).unwrap();
    }
    std::fs::create_dir(at.join("disk/kept")).unwrap();
    disk.remount("ro");
    let refuse = |words: &[&str], parts: &[&str]| refused(at, &[&BOOST[..], words].concat(), 2, parts);
    refuse(&["-o", "disk/m.h5"], &["disk/m.h5", "cannot write into the folder"]);
    for folder in ["disk/kept", "disk/made"] {
        refuse(&["-o", "m.h5", "--checkpoint", folder], &["--checkpoint", folder, "Read-only file system"]);
    }
    refused(at, &["predict", "whole.h5", "t.h5", "-o", "disk/p.h5"], 2, &["disk/p.h5"]);
    for &n in ranks() {
        let words = ["train", "boost", "disk/t.h5", "--rounds", "6", "--max-leaves", "8", "-o", "m.h5", "--force"];
        assert_eq!(digest(&done(at, n, &words)), whole);
        done(at, n, &["predict", "disk/whole.h5", "disk/t.h5", "-o", "p.h5", "--force"]);
        done(at, n, &["evaluate", "disk/whole.h5", "disk/t.h5"]);
    }
    disk.remount("rw");
}

#[test]
fn a_damaged_model_predicts_nothing() {
    let (folder, _) = some_table();
    let at = folder.path();
    let good = std::fs::read(at.join("whole.h5")).unwrap();
    let n = good.len();
    let cuts = [n / 2, n - 1, n - 48, 100];
    let flips = (0..12).map(|i| (i * 7919 * 7919 + 750) % n).chain([n - 1, n - 40]);
    let flipped = flips.map(|byte| {
        let mut bad = good.clone();
        bad[byte] ^= 1 << (byte % 8);
        (format!("byte {byte} of {n}"), bad)
    });
    for (what, bad) in flipped.chain(cuts.map(|cut| (format!("cut at {cut} of {n}"), good[..cut].to_vec()))) {
        std::fs::write(at.join("m.h5"), bad).unwrap();
        for words in
            [&["predict", "m.h5", "t.h5", "-o", "p.h5"][..], &["inspect", "m.h5"], &["evaluate", "m.h5", "t.h5"]]
        {
            let ended = consort(at, 0, words);
            assert_eq!(ended.code, Some(3), "{what}: {words:?}:\n{}", ended.text);
            one_message(&ended, &["m.h5"]);
        }
        assert!(!at.join("p.h5").exists());
    }
    refused(at, &["predict", "m.h5", "t.h5", "-o", "p.h5"], 3, &["m.h5"]);
}
