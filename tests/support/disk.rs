//! File systems that are small or may not be written: real ones, where this machine lets a test mount them.
#![allow(dead_code, clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A file system in memory, gone with this.
pub(crate) struct Disk {
    at: PathBuf,
    /// Where nobody else has one.
    _folder: Option<tempfile::TempDir>,
}

impl Disk {
    /// One of so many KiB; `None`, loudly, where nothing may be mounted.
    pub(crate) fn of_kib(kib: u32) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let mut disk = Self::over(folder.path(), kib)?;
        disk._folder = Some(folder);
        Some(disk)
    }

    /// The same over a folder that is there, whose files are hidden as long.
    pub(crate) fn over(folder: &Path, kib: u32) -> Option<Self> {
        let size = format!("size={kib}k");
        let mount = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &size, "cuewire-test"])
            .arg(folder)
            .stderr(Stdio::null())
            .status();
        if !mount.is_ok_and(|status| status.success()) {
            eprintln!("!!!! SKIPPED: nothing may be mounted here (`mount -t tmpfs` needs root): no small disk to fill");
            return None;
        }
        Some(Self { at: folder.to_path_buf(), _folder: None })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.at
    }

    pub(crate) fn may_be_written(&self, may: bool) {
        let how = if may { "remount,rw" } else { "remount,ro" };
        assert!(Command::new("mount").args(["-o", how]).arg(self.path()).status().unwrap().success());
    }

    /// Takes all the room that is left; deleting the file gives it back.
    pub(crate) fn fill(&self) -> PathBuf {
        use std::io::Write as _;
        let ballast = self.path().join("ballast");
        let mut file = std::fs::File::create(&ballast).unwrap();
        while file.write_all(&[0; 4096]).is_ok() {}
        while file.write_all(&[0]).is_ok() {}
        ballast
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Whoever still has a file open there keeps it until they are done.
        let _ = Command::new("umount").arg("-l").arg(&self.at).status();
    }
}
