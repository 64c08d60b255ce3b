//! Names and numbers of the protocol are its interface (§6.2, §6.3): here they are once more, as the
//! tables give them, and compared with the descriptor that the launchers get.

use std::collections::BTreeMap;

use fleetline_worker::rpc::DESCRIPTOR;
use prost::Message;

const TABLE: &str = "\
StreamingMessage 1 request_id 2 rpc_log 4 invocation_request 5 invocation_response 8 function_load_request \
 9 function_load_response 12 worker_status_request 13 worker_status_response 14 worker_terminate \
 16 worker_init_response 17 worker_init_request 20 start_stream 21 invocation_cancel \
 25 function_environment_reload_request 26 function_environment_reload_response \
 29 functions_metadata_request 30 function_metadata_response 31 function_load_request_collection \
 32 function_load_response_collection 33 worker_warmup_request 34 worker_warmup_response
StartStream 2 worker_id
WorkerInitRequest 1 host_version 2 capabilities 3 log_categories 4 worker_directory 5 function_app_directory
WorkerInitResponse 1 worker_version 2 capabilities 3 result 4 worker_metadata
WorkerMetadata 1 runtime_name 2 runtime_version 3 worker_version 4 worker_bitness 5 custom_properties
StatusResult 4 status 1 result 2 exception 3 logs
RpcException 1 stack_trace 2 message 3 source 4 is_user_exception 5 type
WorkerTerminate 1 grace_period
FunctionsMetadataRequest 1 function_app_directory
FunctionMetadataResponse 1 function_metadata_results 2 result 3 use_default_metadata_indexing
RpcFunctionMetadata 1 directory 2 script_file 3 entry_point 4 name 6 bindings 7 is_proxy 8 status 9 language \
 10 raw_bindings 13 function_id 14 managed_dependency_enabled 15 retry_options 16 properties
BindingInfo 2 type 3 direction 4 data_type 5 properties
RpcRetryOptions 2 max_retry_count 3 delay_interval 4 minimum_interval 5 maximum_interval 6 retry_strategy
FunctionLoadRequest 1 function_id 2 metadata 3 managed_dependency_enabled
FunctionLoadResponse 1 function_id 2 result 3 is_dependency_downloaded
InvocationRequest 1 invocation_id 2 function_id 3 input_data 4 trigger_metadata 5 trace_context 6 retry_context
InvocationResponse 1 invocation_id 2 output_data 3 result 4 return_value
InvocationCancel 2 invocation_id 1 grace_period
RpcTraceContext 1 trace_parent 2 trace_state 3 attributes
RetryContext 1 retry_count 2 max_retry_count 3 exception
ParameterBinding 1 name 2 data 3 rpc_shared_memory
TypedData 1 string 2 json 3 bytes 4 stream 5 http 6 int 7 double 8 collection_bytes 9 collection_string \
 10 collection_double 11 collection_sint64 12 model_binding_data 13 collection_model_binding_data
ModelBindingData 1 version 2 source 3 content_type 4 content
RpcHttp 1 method 2 url 3 headers 4 body 10 params 12 status_code 15 query 16 enable_content_negotiation \
 17 rawBody 18 identities 19 cookies 20 nullable_headers 21 nullable_params 22 nullable_query
RpcHttpCookie 1 name 2 value 3 domain 4 path 5 expires 6 secure 7 http_only 8 same_site 9 max_age
RpcClaimsIdentity 1 authentication_type 2 name_claim_type 3 role_claim_type 4 claims
RpcLog 1 invocation_id 2 category 3 level 4 message 5 event_id 6 exception 7 properties 8 log_category \
 9 propertiesMap
FunctionEnvironmentReloadRequest 1 environment_variables 2 function_app_directory
FunctionEnvironmentReloadResponse 1 worker_metadata 2 capabilities 3 result 4 capabilities_update_strategy
WorkerWarmupRequest 1 worker_directory
WorkerWarmupResponse 1 result";

#[test]
fn names_and_numbers_are_those_of_the_tables() {
    let set = prost_types::FileDescriptorSet::decode(DESCRIPTOR).unwrap();
    let own = |file: &&prost_types::FileDescriptorProto| file.package() == "AzureFunctionsRpcMessages";
    let file = set.file.iter().find(own).unwrap();
    for line in TABLE.lines() {
        let mut words = line.split_whitespace();
        let name = words.next().unwrap();
        let message = file.message_type.iter().find(|message| message.name() == name).expect(name);
        let found: BTreeMap<i32, &str> =
            message.field.iter().map(|field| (field.number(), field.name())).collect();
        let mut expected = BTreeMap::new();
        while let (Some(number), Some(field)) = (words.next(), words.next()) {
            expected.insert(number.parse::<i32>().unwrap(), field);
        }
        assert_eq!(found, expected, "{name}");
    }
    // §6.3: `int` is sint64, `status` is an enum whose zero is failure.
    let typed = file.message_type.iter().find(|message| message.name() == "TypedData").unwrap();
    let int = typed.field.iter().find(|field| field.name() == "int").unwrap();
    assert_eq!(int.r#type(), prost_types::field_descriptor_proto::Type::Sint64);
}
