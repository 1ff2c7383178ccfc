// Spring's RestClient as it is without any other HTTP library on the class path: on the JDK's client.
import org.springframework.http.MediaType;
import org.springframework.web.client.RestClient;

public class SpringRestClient {
    public static void main(String[] arguments) {
        String url = arguments[0], key = arguments[1], body = arguments[2];
        int status = RestClient.create().post()
            .uri(url)
            .header("Authorization", "Bearer " + key)
            .contentType(MediaType.APPLICATION_JSON)
            .body(body)
            .retrieve()
            .toBodilessEntity()
            .getStatusCode()
            .value();
        System.out.println(status);
    }
}
