//! Batch scripts for job files. That SLURM runs them is seen in tests/slurm.sh.

use super::*;

const JOB: &str = "kind = \"boost\"\ndata = \"t.h5\"\noutput = \"m.h5\"\nrounds = 4\n";

fn some_job(text: &str) -> TempDir {
    let folder = folder();
    table(&folder, "t.h5", 101, |_, _| {});
    std::fs::write(folder.path().join("job.toml"), text).unwrap();
    folder
}

#[test]
fn a_script_is_written_once_and_names_whole_paths() {
    let folder = some_job(JOB);
    let path = folder.path();
    let words =
        ["slurm", "job.toml", "--nodes", "3", "--ntasks-per-node", "5", "--cpus-per-task", "2", "--time", "2:00:30"];
    let told = done(path, 0, &words);
    assert!(told.contains("3 nodes × 5 ranks × 2 threads, 02:01:00") && told.contains("sbatch job.sbatch"), "{told}");
    let text = std::fs::read_to_string(path.join("job.sbatch")).unwrap();
    for line in ["nodes=3", "ntasks=15", "ntasks-per-node=5", "cpus-per-task=2", "time=02:01:00", "job-name=job"] {
        assert!(text.contains(&format!("#SBATCH --{line}\n")), "{line}:\n{text}");
    }
    let here = path.canonicalize().unwrap();
    for (setting, name) in [("JOB_FILE", "job.toml"), ("MODEL", "m.h5"), ("CHECKPOINT", "m.checkpoint")] {
        assert!(text.contains(&format!("{setting}={}\n", here.join(name).display())), "{setting}:\n{text}");
    }
    assert!(text.contains("EVERY=5m\n") && text.contains("scontrol requeue"), "{text}");
    // Not over a script that may have been edited.
    refused(path, &words, 2, &["job.sbatch", "exists", "--force"]);
    done(path, 0, &[&words[..], &["--force"]].concat());
    // To stdout, from settings of the job file.
    let kept = format!("{JOB}threads = 3\ncheckpoint = \"kept/here\"\nevery = \"2m\"\n");
    std::fs::write(path.join("other.toml"), kept).unwrap();
    let text = output(path, 0, &["slurm", "other.toml", "-o", "-", "--array", "1-3", "--partition", "long"]);
    for line in ["cpus-per-task=3", "array=1-3", "partition=long", "output=%x-%A_%a.out", "signal=B:USR1@120"] {
        assert!(text.contains(&format!("#SBATCH --{line}\n")), "{line}:\n{text}");
    }
    assert!(text.contains(&format!("CHECKPOINT={}/kept/here\nEVERY=2m\n", here.display())), "{text}");
    assert!(text.starts_with("#!/usr/bin/env bash\n") && text.ends_with("exit \"$code\"\n"));
    assert!(!path.join("other.sbatch").exists());
}

#[test]
fn words_that_slurm_would_not_take_are_refused() {
    let folder = some_job(JOB);
    let refuse = |words: &[&str], parts: &[&str]| {
        refused(folder.path(), &[&["slurm", "job.toml"], words].concat(), 2, parts);
    };
    refuse(&["--time", "soon"], &["--time", "'soon'", "90m"]);
    refuse(&["--time", "0"], &["--time", "'0'"]);
    refuse(&["--array", "5-1"], &["--array", "'5-1'", "1-5"]);
    refuse(&["--partition", "a b"], &["--partition", "'a b'"]);
    refuse(&["--launcher", "sruun"], &["--launcher", "'sruun'", "srun, mpirun"]);
    refuse(&["-o", "t.h5", "--force"], &["t.h5", "one of its inputs"]);
    let ended = consort(folder.path(), 0, &["slurm", "job.toml", "--nodes", "0"]);
    assert!(ended.code == Some(2) && ended.text.contains("--nodes") && ended.text.contains("0"), "{}", ended.text);
}

#[test]
fn a_job_file_is_checked_with_its_tables_before_a_script_is_written() {
    let refuse = |text: &str, code: i32, parts: &[&str]| {
        let folder = some_job(text);
        refused(folder.path(), &["slurm", "job.toml", "--nodes", "2"], code, parts);
    };
    refuse(&format!("{JOB}rundes = 5\n"), 2, &["job.toml", "'rundes'", "consort train"]);
    refuse(&format!("{JOB}rounds 5\n"), 2, &["job.toml"]);
    refuse(&format!("{JOB}epochs = 5\n"), 2, &["job.toml", "--epochs"]);
    refuse("kind = \"boost\"\ndata = \"t.h5\"\n", 2, &["job.toml", "-o MODEL.h5"]);
    refuse(&JOB.replace("t.h5", "none.h5"), 3, &["none.h5"]);
    refuse(&format!("{JOB}valid = \"none.h5\"\n"), 3, &["none.h5"]);
    refuse(&format!("{JOB}target = \"z\"\n"), 3, &["t.h5", "'z'"]);
    refuse(&JOB.replace("m.h5", "none/m.h5"), 2, &["none/m.h5", "no folder"]);
    refuse(&JOB.replace("m.h5", "t.h5"), 2, &["t.h5", "one of the inputs"]);
    refuse(&format!("{JOB}world = \"threads:2\"\n"), 2, &["job.toml", "train alone"]);
    refuse(&format!("{JOB}checkpoint = \"c\"\nresume = \"never\"\n"), 2, &["job.toml", "resume", "leave it out"]);
    refuse(&format!("{JOB}print-config = true\n"), 2, &["job.toml", "print-config"]);
    let folder = folder();
    refused(folder.path(), &["slurm", "none.toml"], 2, &["none.toml", "cannot read it"]);
}
