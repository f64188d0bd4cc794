use simple_dns::rdata::{AAAA, CNAME};
use simple_dns::{Name, QCLASS, Question};

use super::*;

pub(crate) fn question(id: u16, name: &str, kind: TYPE) -> Vec<u8> {
    let mut packet = Packet::new_query(id);
    packet.set_flags(PacketFlag::RECURSION_DESIRED);
    let name = Name::new(name).unwrap();
    let question = Question::new(name, QTYPE::TYPE(kind), QCLASS::CLASS(CLASS::IN), false);
    packet.questions.push(question);
    packet.build_bytes_vec().unwrap()
}

fn answer(id: u16, question: (&str, TYPE), records: &[(&str, u32, RData<'static>)]) -> Vec<u8> {
    let mut packet = Packet::new_reply(id);
    let name = Name::new(question.0).unwrap();
    let asked = Question::new(name, QTYPE::TYPE(question.1), QCLASS::CLASS(CLASS::IN), false);
    packet.questions.push(asked);
    for (name, ttl, data) in records {
        let name = Name::new(name).unwrap();
        packet
            .answers
            .push(ResourceRecord::new(name, CLASS::IN, *ttl, data.clone()));
    }
    packet.build_bytes_vec_compressed().unwrap()
}

fn a(text: &str) -> RData<'static> {
    let address: Ipv4Addr = text.parse().unwrap();
    RData::A(A {
        address: address.into(),
    })
}

fn alias(name: &'static str) -> RData<'static> {
    RData::CNAME(CNAME(Name::new(name).unwrap()))
}

#[test]
fn a_service_is_answered_with_its_address_and_nothing_of_other_families() {
    for (kind, count) in [(TYPE::A, 1), (TYPE::AAAA, 0), (TYPE::TXT, 0)] {
        let query = Query::read(&question(0x1234, "Hello.Default", kind)).unwrap();
        assert_eq!(&*query.name, "hello.default");
        let reply = query.service(Ipv4Addr::new(198, 19, 0, 1)).unwrap();
        let reply = Packet::parse(&reply).unwrap();
        assert_eq!((reply.id(), reply.rcode()), (0x1234, RCODE::NoError));
        assert!(reply.has_flags(PacketFlag::RESPONSE | PacketFlag::RECURSION_DESIRED));
        assert_eq!(
            reply.questions[0].qname.to_string(),
            "Hello.Default",
            "as it was written"
        );
        assert_eq!(reply.answers.len(), count);
        if count == 1 {
            assert_eq!(reply.answers[0].rdata, a("198.19.0.1"));
        }
    }
}

#[test]
fn failures_have_their_codes() {
    let query = Query::read(&question(7, "x", TYPE::A)).unwrap();
    for (failure, code) in [
        (Failure::Missing, RCODE::NameError),
        (Failure::Refused, RCODE::Refused),
        (Failure::Server, RCODE::ServerFailure),
    ] {
        let reply = query.fail(failure).unwrap();
        let reply = Packet::parse(&reply).unwrap();
        assert_eq!((reply.id(), reply.rcode(), reply.answers.len()), (7, code, 0));
    }
}

#[test]
fn what_is_no_question_is_complained_about_or_ignored() {
    let good = question(9, "example.com", TYPE::A);
    assert!(Query::read(&[]).unwrap_err().is_none());
    assert!(Query::read(&good[..11]).unwrap_err().is_none());
    let cut = Query::read(&good[..good.len() - 3]).unwrap_err().unwrap();
    assert_eq!(cut.len(), HEADER);
    assert_eq!((&cut[..2], cut[3] & 0xf), (&good[..2], 1));
    let mut response = good.clone();
    response[2] |= 0x80;
    assert!(
        Query::read(&response).unwrap_err().is_none(),
        "or two servers would talk forever"
    );
    let mut update = good.clone();
    update[2] |= 5 << 3;
    assert_eq!(Query::read(&update).unwrap_err().unwrap()[3] & 0xf, 4);
    let mut none = good[..HEADER].to_vec();
    none[5] = 0;
    assert_eq!(Query::read(&none).unwrap_err().unwrap()[3] & 0xf, 1);
    for length in 0..good.len() {
        let _ = Query::read(&good[..length]);
    }
}

#[test]
fn an_answer_gives_the_addresses_of_the_name_that_was_asked_for() {
    let query = Query::read(&question(1, "www.example.com", TYPE::A)).unwrap();
    let records = [
        ("b.example.net", 300, a("192.0.2.2")),
        ("www.example.com", 60, alias("a.example.net")),
        ("b.example.net", 30, a("192.0.2.3")),
        ("a.example.net", 600, alias("B.example.net")),
        ("other.example.com", 300, a("192.0.2.9")),
        ("www.example.com", 300, RData::AAAA(AAAA { address: 1 })),
    ];
    let message = answer(77, ("WWW.example.com", TYPE::A), &records);
    let found = query.answered(77, &message).unwrap();
    let wanted = [("192.0.2.2", 60), ("192.0.2.3", 30)]
        .map(|(address, ttl)| (address.parse::<IpAddr>().unwrap(), Duration::from_secs(ttl)));
    assert_eq!(found.addresses, wanted);
    assert_eq!(Query::addresses(&message).len(), 4);
    assert_eq!(query.give_back(message)[..2], [0, 1]);

    let looping = [
        ("www.example.com", 60, alias("a.example.net")),
        ("a.example.net", 60, alias("www.example.com")),
    ];
    let message = answer(77, ("www.example.com", TYPE::A), &looping);
    assert_eq!(query.answered(77, &message).unwrap().addresses, []);
}

#[test]
fn an_answer_to_another_question_is_none() {
    let query = Query::read(&question(1, "www.example.com", TYPE::A)).unwrap();
    let records = [("www.example.com", 60, a("192.0.2.2"))];
    let good = answer(77, ("www.example.com", TYPE::A), &records);
    assert!(query.answered(77, &good).is_some());
    assert!(query.answered(78, &good).is_none());
    assert!(
        query
            .answered(77, &answer(77, ("www.example.org", TYPE::A), &records))
            .is_none()
    );
    assert!(
        query
            .answered(77, &answer(77, ("www.example.com", TYPE::AAAA), &records))
            .is_none()
    );
    assert!(query.answered(77, &query.with_id(77)).is_none(), "a question");
    assert!(query.answered(77, &good[..20]).is_none());
}
