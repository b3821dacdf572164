use consort::{comm::*, data::names::TableNames, train::*};
struct P; impl Observer for P { fn progress(&mut self, p:&Progress){ eprintln!("{:?}",p);} fn warning(&mut self,m:&str){eprintln!("{m}");} }
fn main(){
  let a:Vec<String>=std::env::args().collect();
  let (size,threads)=(a[2].parse().unwrap(),a[3].parse().unwrap());
  let inputs=Inputs{paths:vec![a[1].clone().into()],names:TableNames{group:a.get(4).cloned().filter(|g|!g.is_empty()),..Default::default()}};
  let kind = match a.get(5).map(|s|s.as_str()) {Some("svm")=>Kind::Svm,Some("linear")=>Kind::Linear,_=>Kind::Logistic};
  let config=TrainConfig{kind,solver:Solver::Lbfgs,l2: 1.0/400000.0, tolerance:1e-4, max_iterations: 100, ..Default::default()};
  let out=run_threads(size,threads,|comm|{ let mut p=P; let mut s=Silent; let w:&mut dyn Observer=if comm.is_root(){&mut p}else{&mut s}; train(comm,&inputs,&config,w)});
  let out = out.unwrap(); for (m,r) in out.iter().take(1) { println!("digest {} read {:.3} train {:.3} epoch {:.4} it {} loss {}",m.digest,r.read_s,r.train_s,r.epoch_s,r.iterations,r.loss); }
}
